#pragma once

#include "merganser/merge/tensor_scan.h"
#include "merganser/merge/tensor_statistics.h"

namespace merganser {

// Sets min_magnitude and max_magnitude of `found` for methods that keep task
// vectors by magnitude (TIES, breadcrumbs).
template <typename T>
void find_thresholds(
    const TensorPlan& tensor,
    const TensorParameters& parameters,
    TensorScan<T>& scan,
    TensorStatistics& found);

// Size of one thread's buffers in bytes.
uint64_t thresholds_memory(const MethodInfo& method, size_t models);

} // namespace merganser
