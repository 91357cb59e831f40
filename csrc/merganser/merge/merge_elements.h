#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser {

struct BFloat16 {
  uint16_t bits;
};

// Inputs and output of one fused pass over n elements, merged as numbers of T;
// the parameters are stored as P, which is T, or BFloat16 where T is float.
// Arrays of `scalars.count` pointers; null where the method does not use them.
template <typename T, typename P = T>
struct MergeArrays {
  const P* base = nullptr;
  const T* base_fisher = nullptr;
  const P* const* models = nullptr;
  const T* const* fishers = nullptr;
  P* out = nullptr;
};

// What a pass saw on its way.
template <typename T>
struct MergeFindings {
  int64_t clamped = 0; // elements whose denominator was clamped
  // False where a parameter is not finite or a Fisher not finite or negative;
  // it may be false for a Fisher of -0 too.
  bool inputs_good = true;
  // The greatest magnitude, before the output's rounding; NaN if there is one.
  T largest = 0;
};

// out[i] = merge_element<method>(...) for i < n on the CPU, one thread.
template <typename T, typename P>
MERGANSER_API MergeFindings<T> merge_elements(
    MergeFormula method,
    const MergeScalars<T>& scalars,
    const MergeArrays<T, P>& arrays,
    int64_t n);

} // namespace merganser
