#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/io/subspace_file.h"
#include "merganser/io/task_vector.h"
#include "merganser/objective/groups.h"

namespace merganser {

struct SubspaceOfFishersOptions {
  struct Model {
    std::filesystem::path model; // directory
    std::filesystem::path fisher; // diagonal, of the model
  };
  Model base;
  std::vector<Model> experts;
  // Directories of further models, as for estimates from data.
  std::vector<std::filesystem::path> directions = {};
  Grouping groups = Grouping::kBlock;
};

struct SubspaceOfFishers {
  SubspaceFisher fisher;
  // The factors c of the Fishers that merganser calibrate has measured; none:
  // 1.
  std::optional<Estimate> base_scale;
  std::vector<std::optional<Estimate>> scales; // of the experts
};

// Computes P^T diag(c F) P of base and experts from diagonal Fishers, in
// float64, without data. The experts' gradients are taken to be 0, as at a
// minimum of their losses. Each loss has one fold of the Fisher's examples.
// Memory: T + 5 copies of the parameters for T experts and directions. Progress
// counts models. Throws InputError for invalid models or Fishers, and for a
// Fisher of another model.
MERGANSER_API SubspaceOfFishers subspace_of_fishers(
    const SubspaceOfFishersOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
