#pragma once

#include <filesystem>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Mean of a Fisher over all elements that are merged with it;
// `normalize_fishers` divides by it.
class FisherMean {
 public:
  // Reads the Fisher of one tensor and adds it. The sum does not depend on the
  // number of threads, but its rounding depends on the order of the tensors.
  void add(const TensorSource& fisher, int threads);

  // Throws InputError naming `label` unless the mean is positive and finite.
  double mean(const std::filesystem::path& label) const;
  bool is_empty() const {
    return count_ == 0;
  }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

// Reads the Fishers of a plan that asks for normalize_fishers and returns their
// means, one per plan.inputs (0 for other inputs). Adds tensors in the order of
// their names, so that the result does not depend on shards. Throws InputError
// as FisherMean does.
MERGANSER_API std::vector<double> fisher_means(
    const MergePlan& plan,
    int threads);

} // namespace merganser
