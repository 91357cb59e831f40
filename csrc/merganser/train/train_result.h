#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/train/metrics.h"

namespace merganser {

struct MERGANSER_API TrainResult {
  std::filesystem::path out;
  int64_t steps = 0;
  int64_t examples = 0;
  double seconds = 0; // duration of this call, loading included
  std::vector<EpochMetrics> epochs;
  std::vector<std::string> new_parameters; // not in options.model: a new head
  int64_t model_epoch = 0; // epoch of the model in `out`, from 1
  std::optional<std::filesystem::path> fisher; // its file, if requested

  std::string to_text() const; // for people, ends with a newline
  std::string to_json() const; // the same for machines
};

} // namespace merganser
