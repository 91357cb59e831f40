#pragma once

#include <cstdint>
#include <vector>

namespace merganser {

// What a method must know of a whole tensor before it can merge its chunks;
// merge/measure_tensor.h computes it. Empty where the method needs nothing.
struct TensorStatistics {
  // Per model: keeps task vectors of magnitude [min, max], times rescale.
  std::vector<double> min_magnitude;
  std::vector<double> max_magnitude;
  std::vector<double> rescale;
  // DELLA: per model, the mask of a tensor with long rows (ranked_mask.h).
  std::vector<std::vector<uint64_t>> mask;
  // Replace the parameters' weights; slerp has those of base and model.
  std::vector<double> weights;
  // The merged tensor itself, where Gram matrices were solved with.
  std::vector<double> merged;
};

} // namespace merganser
