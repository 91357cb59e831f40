#pragma once

#include <cstddef>
#include <span>

#include "merganser/base/api.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Merges or copies one tensor into `out`, of its output's size, with the
// parameters of one of the outputs: the bytes that execute_merge writes, for
// any number of threads. `fisher_means` as in ChunkMerger. Throws InputError
// for a value that is not finite or that the output's type cannot hold.
MERGANSER_API void merge_tensor(
    const TensorPlan& tensor,
    size_t output,
    std::span<const double> fisher_means,
    std::span<std::byte> out,
    int threads);

} // namespace merganser
