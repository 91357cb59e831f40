#pragma once

#include <cstdint>

#include "io/api.h"
#include "merge/formula.h"

namespace merganser {

// Inputs and output of one fused pass over n elements. Arrays of
// `scalars.count` pointers; null where the method does not use them.
template <typename T>
struct MergeArrays {
  const T* base = nullptr;
  const T* base_fisher = nullptr;
  const T* const* models = nullptr;
  const T* const* fishers = nullptr;
  T* out = nullptr;
};

// out[i] = merge_element<method>(...) for i < n on the CPU, one thread.
// Returns the number of elements whose denominator was clamped.
template <typename T>
MERGANSER_API int64_t merge_elements(
    MergeMethod method,
    const MergeScalars<T>& scalars,
    const MergeArrays<T>& arrays,
    int64_t n);

} // namespace merganser
