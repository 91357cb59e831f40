#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser {

struct BFloat16 {
  uint16_t bits;
};

// Inputs and output of one fused pass over n elements, merged as numbers of
// Compute; the parameters are stored as Stored, which is Compute, or BFloat16
// where Compute is float. Arrays of `scalars.count` pointers; null where the
// method does not use them.
template <typename Compute, typename Stored = Compute>
struct MergeArrays {
  const Stored* base = nullptr;
  const Compute* base_fisher = nullptr;
  const Stored* const* models = nullptr;
  const Compute* const* fishers = nullptr;
  Stored* out = nullptr;
};

// What a pass saw on its way.
template <typename Compute>
struct MergeFindings {
  int64_t clamped = 0; // elements whose denominator was clamped
  // False where a parameter is not finite or a Fisher not finite or negative;
  // it may be false for a Fisher of -0 too.
  bool inputs_good = true;
  // The greatest magnitude, before the output's rounding; NaN if there is one.
  Compute largest = 0;
};

// out[i] = merge_element<method>(...) for i < n on the CPU, one thread.
template <typename Compute, typename Stored>
MERGANSER_API MergeFindings<Compute> merge_elements(
    MergeFormula method,
    const MergeScalars<Compute>& scalars,
    const MergeArrays<Compute, Stored>& arrays,
    int64_t n);

} // namespace merganser
