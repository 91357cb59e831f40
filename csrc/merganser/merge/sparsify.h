#pragma once

#include "merganser/base/api.h"
#include "merganser/merge/chunks.h"
#include "merganser/merge/tensor_statistics.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

struct SparsifyArguments {
  size_t model = 0;
  size_t output = 0;
  const TensorStatistics& statistics;
};

// Sets out[i] = rescale * (theta[i] - base[i]) if the method keeps the element,
// otherwise 0. Returns true if all of theta - base is finite, dropped elements
// included.
template <typename T>
MERGANSER_API bool sparsify(
    const TensorPlan& tensor,
    const Chunk& chunk,
    const SparsifyArguments& arguments,
    const T* base,
    const T* theta,
    T* out);

// Size of one thread's buffers for random masks in bytes.
uint64_t random_mask_memory(const MethodInfo& method);

} // namespace merganser
