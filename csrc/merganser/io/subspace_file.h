#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

// `estimator` in the metadata of a file of this kind.
inline constexpr const char* kSubspaceEstimator = "subspace";

// Fishers and gradients of the losses of a base and T experts in the span
// of the task vectors tau_t = theta_t - theta_0 split by G groups of
// parameters: column c = t G + g equals tau_t on group g and is zero elsewhere,
// C = T G. Sums over the examples of each of K parts ("folds"), for
// cross-validation. An expert without examples is a direction: a model, such as
// another merge, that adds its columns and has no loss. Exact Fishers have two
// folds or more; those of diagonal Fishers have one fold for each loss, since
// their examples are not known one by one.
struct MERGANSER_API SubspaceFisher {
  struct Loss {
    std::string model_hash; // Checkpoint::content_hash() of theta_0 or theta_t
    int64_t num_examples = 0; // N of the data set
    std::vector<int64_t> counts = {}; // examples of each fold (K)
    std::vector<double> fisher = {}; // sums of P^T F_i P, row-major (K, C, C)
    std::vector<double> gradient = {}; // sums of P^T g_i at theta_t (K, C)

    bool is_direction() const {
      return counts.empty();
    }
  };
  struct Group {
    std::string name;
    std::vector<std::string> tensors;
  };

  std::vector<Group> groups; // G
  int64_t points = 1; // along the path from each model to the experts' average,
                      // over which its Fisher is averaged
  uint64_t seed = 0; // of the examples
  Loss base; // without a gradient
  std::vector<Loss> experts; // T, directions included

  size_t columns() const {
    return experts.size() * groups.size();
  }

  // True for the Fishers P^T diag(F) P of diagonals, which have one fold.
  bool is_of_diagonals() const {
    return base.counts.size() == 1;
  }

  // The same with whole task vectors: sums over the columns of an expert.
  SubspaceFisher as_one_group() const;

  // Throws InputError unless all sizes fit one another, one expert at least is
  // no direction, all losses have two folds or more or all have one, every fold
  // has an example, no data set has fewer examples than were used, and values
  // are finite.
  void check() const;

  // Safetensors: float64 tensors "base.fisher", "experts.T.fisher" and
  // "experts.T.gradient", and metadata.
  void save(const std::filesystem::path& file) const; // checks first
  // Throws InputError naming the file if `save` did not write it.
  static SubspaceFisher load(const Checkpoint& file);
};

} // namespace merganser
