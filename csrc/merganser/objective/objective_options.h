#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// A task t of the joint objective.
struct ObjectiveTask {
  std::filesystem::path expert; // model directory
  std::filesystem::path data; // the data that the expert was trained on
  std::optional<std::filesystem::path> fisher; // the expert's, on these data
  double weight = 1; // a_t
};

// Inputs of the joint objective (joint_objective.h).
struct ObjectiveOptions {
  std::filesystem::path base; // model directory: theta_0
  std::optional<std::filesystem::path> base_fisher; // F_0; none: no H_0
  std::vector<ObjectiveTask> tasks;
  int64_t limit = -1; // examples per task, sampled with `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false; // autocast; sums stay float32 or wider
};

// Throws InputError for no tasks or an option out of range.
MERGANSER_API void check_options(const ObjectiveOptions& options);

} // namespace merganser
