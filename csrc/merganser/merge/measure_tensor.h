#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/merge/tensor_statistics.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Reads the tensor's chunks one to three times, as the method needs; the
// result does not depend on the number of threads. `output` selects the
// parameters.
MERGANSER_API TensorStatistics
measure_tensor(const TensorPlan& tensor, size_t output, int threads);

// True if both outputs' parameters give the same statistics.
bool same_statistics(
    const MethodInfo& method,
    const TensorParameters& a,
    const TensorParameters& b);

// Size of one thread's buffers in bytes.
uint64_t statistics_memory(const MethodInfo& method, size_t models);

} // namespace merganser
