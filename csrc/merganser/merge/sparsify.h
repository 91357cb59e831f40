#pragma once

#include "merganser/merge/chunks.h"
#include "merganser/merge/tensor_statistics.h"

namespace merganser {

struct SparsifyArguments {
  size_t model = 0; // in the tensor's sources
  size_t output = 0;
  const TensorStatistics& statistics;
};

// out[i] = rescale * (theta[i] - base[i]) where the method keeps it, else 0, of
// a chunk's elements. Returns whether all of theta - base is finite, also where
// it is not kept.
template <typename T>
bool sparsify(
    const MergePlan& plan,
    const TensorPlan& tensor,
    const Chunk& chunk,
    const SparsifyArguments& arguments,
    const T* base,
    const T* theta,
    T* out);

// Bytes that one thread holds meanwhile for what is kept by chance.
uint64_t chance_memory(const MethodInfo& method);

} // namespace merganser
