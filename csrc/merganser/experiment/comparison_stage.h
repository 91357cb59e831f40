#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "merganser/experiment/stage_runner.h"

namespace merganser {

struct ComparisonTask {
  std::filesystem::path folder; // of the output, comparisons.json
  // Directories of experiments that differ in the seed: their examples are
  // pooled, and those of the same text count as one unit.
  std::vector<std::filesystem::path> experiments;
  std::vector<std::string> models;
  std::vector<std::string> sets;
  uint64_t seed = 0; // of the bootstrap
};

// Compares every pair of models by their predictions on the test sets; the list
// `comparisons` of results.json.
Json compare_models(StageRunner& runner, const ComparisonTask& task);

} // namespace merganser
