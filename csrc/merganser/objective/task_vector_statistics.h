#pragma once

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/io/task_vector.h"
#include "merganser/objective/objective_options.h"

namespace merganser {

// Measures an expert's loss along its task vector: its gradient at the expert,
// and the base's exact Fisher at the base, in eval mode, with standard errors.
// Two passes, each over `limit` examples; no gradient of an example and no
// array of the model's size but the task vector is held. `base_data`: the
// labelled data that the base was trained on. Sets base_model_hash. Progress
// counts examples. Throws InputError for invalid options, models or data.
struct TaskVectorOptions {
  std::filesystem::path base;
  std::filesystem::path base_data;
  std::filesystem::path expert;
  std::filesystem::path data;
  int64_t limit = -1; // examples of each data set, sampled with `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false;
};
MERGANSER_API TaskVectorStatistics measure_task_vector(
    const TaskVectorOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
