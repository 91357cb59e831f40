#pragma once

#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"
#include "merganser/train/train_options.h"

namespace merganser {

// Inputs of a training run.
struct TrainingTask {
  Encoder model;
  std::vector<std::string> new_parameters; // initialized, not read
  std::string model_hash; // Checkpoint::content_hash() of the starting model
  int32_t pad_id = 0;
  Dataset train; // all training files, concatenated
  std::vector<Dataset> eval;
};

// Throws InputError for invalid options, models or data.
MERGANSER_API TrainingTask load_task(const TrainOptions& options);

} // namespace merganser
