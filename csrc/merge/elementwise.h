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

// What a pass saw on its way.
template <typename T>
struct MergeFindings {
  int64_t clamped = 0; // elements whose denominator was clamped
  // False where a parameter is not finite or a Fisher not finite or negative;
  // it may be false for a Fisher of -0 too.
  bool inputs_good = true;
  // The greatest magnitude in `out`; NaN if there is a NaN.
  T largest = 0;
};

// out[i] = merge_element<method>(...) for i < n on the CPU, one thread.
template <typename T>
MERGANSER_API MergeFindings<T> merge_elements(
    MergeFormula method,
    const MergeScalars<T>& scalars,
    const MergeArrays<T>& arrays,
    int64_t n);

} // namespace merganser
