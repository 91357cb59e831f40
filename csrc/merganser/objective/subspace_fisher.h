#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/io/subspace_file.h"
#include "merganser/objective/groups.h"

namespace merganser {

struct SubspaceFisherOptions {
  struct Model {
    std::filesystem::path model; // directory
    std::filesystem::path data; // labelled, that the model was trained on
  };
  Model base;
  std::vector<Model> experts;
  // Directories of further models, such as other merges, whose displacements
  // from the base are also columns.
  std::vector<std::filesystem::path> directions = {};
  Grouping groups = Grouping::kBlock;
  // Fishers are averages over this many points along the path from each model
  // to the experts' average; 1: at the model alone.
  int64_t points = 2;
  int64_t limit = -1; // examples of each data set, sampled with `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false;
};

// Estimates the exact Fishers of base and experts, and the experts' gradients,
// in the span of the task vectors and directions, in eval mode: `points`
// forward passes over each model's examples, and K - 1 backward passes for each
// with K classes. Memory: T + 6 copies of the parameters for T experts and
// directions. Progress counts examples. Throws InputError for invalid options,
// models or data, and for fewer than two examples.
MERGANSER_API SubspaceFisher estimate_subspace_fisher(
    const SubspaceFisherOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
