#pragma once

#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"
#include "merganser/train/train_options.h"

namespace merganser {

// What a training run reads before it begins.
struct TrainingTask {
  Encoder model{nullptr};
  std::vector<std::string> new_parameters; // drawn, not read
  std::string model_hash; // Checkpoint::content_hash() of where it starts
  int32_t pad_id = 0;
  Dataset train; // all training files, one behind the other
  std::vector<Dataset> eval;
};

// Throws InputError for options, models or data that cannot be used.
MERGANSER_API TrainingTask load_task(const TrainOptions& options);

} // namespace merganser
