#pragma once

#include <filesystem>
#include <vector>

#include "merganser/plan/plan.h"

namespace merganser {

// The mean of a Fisher over all elements that are merged with it:
// `normalize_fishers` divides by it.
class FisherMean {
 public:
  // Reads a tensor's part of the Fisher. The same for any number of threads;
  // the sum's rounding depends on the order of the tensors.
  void add(const TensorSource& fisher, int threads);

  // Throws InputError naming `label` where it is not greater than 0 and finite.
  double mean(const std::filesystem::path& label) const;
  bool is_empty() const {
    return count_ == 0;
  }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

// Of every Fisher of a plan, by its place in plan.inputs (0 for what is no
// Fisher). Tensors are added in the order of their names, however they are
// spread over files. Reads the Fishers; throws InputError as FisherMean does.
std::vector<double> fisher_means(const MergePlan& plan, int threads);

} // namespace merganser
