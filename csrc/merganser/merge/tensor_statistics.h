#pragma once

#include <cstdint>
#include <vector>

namespace merganser {

// Statistics of a whole tensor that a method needs before it can merge chunks;
// merge/measure_tensor.h computes them. Members that it does not need are
// empty.
struct TensorStatistics {
  // Per model: magnitudes of the task vector that are kept, and their factor.
  std::vector<double> min_magnitude;
  std::vector<double> max_magnitude;
  std::vector<double> rescale;
  // DELLA: per model, the mask of a tensor with long rows (ranked_mask.h).
  std::vector<std::vector<uint64_t>> mask;
  // Weights that replace the parameters'; slerp has one for base and model
  // each.
  std::vector<double> weights;
  // The merged tensor itself, for weights merged with Gram matrices.
  std::vector<double> merged;
  // The merged task vector, for weights merged by singular vectors.
  std::vector<double> update;
};

} // namespace merganser
