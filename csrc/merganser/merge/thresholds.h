#pragma once

#include "merganser/merge/tensor_scan.h"
#include "merganser/merge/tensor_statistics.h"

namespace merganser {

// Sets least and most of `found` where the method keeps task vectors by their
// magnitudes, as TIES and breadcrumbs do.
template <typename T>
void find_thresholds(
    const MethodInfo& method,
    const TensorPlan& tensor,
    const TensorParameters& parameters,
    TensorScan<T>& scan,
    TensorStatistics& found);

// Bytes that one thread holds meanwhile.
uint64_t thresholds_memory(const MethodInfo& method, size_t models);

} // namespace merganser
