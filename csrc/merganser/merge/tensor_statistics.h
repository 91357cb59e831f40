#pragma once

#include <cstdint>
#include <vector>

#include "merganser/plan/plan.h"

namespace merganser {

// What a method must know of a whole tensor before it can merge its chunks.
struct TensorStatistics {
  // Per model: task vectors keep magnitudes in [least, most], times rescale.
  std::vector<double> least;
  std::vector<double> most;
  std::vector<double> rescale;
  // DELLA: per model what is kept of a tensor with long rows, see long_rows.h.
  std::vector<std::vector<uint64_t>> chosen;
  // In place of the parameters' weights: of slerp those of base and model.
  std::vector<double> weights;
  // The merged tensor itself, where Gram matrices were solved with.
  std::vector<double> merged;
};

// Reads the tensor's chunks as often as the method asks for, once to three
// times; the same result for any number of threads. `output`: with the
// parameters of which output.
TensorStatistics measure_tensor(
    const MergePlan& plan,
    size_t tensor,
    size_t output,
    int threads);

// Whether it finds the same with the parameters of either output.
bool same_statistics(
    const MethodInfo& method,
    const TensorParameters& a,
    const TensorParameters& b);

// Bytes that one thread holds meanwhile.
uint64_t statistics_memory(const MethodInfo& method, size_t models);

} // namespace merganser
