#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser {

struct BFloat16 {
  uint16_t bits;
};

// Inputs and output of one fused pass over n elements, in arithmetic of
// Compute; the parameters are stored as Stored, which is Compute, or BFloat16
// if Compute is float. `models` and `fishers` have `scalars.count` pointers;
// arrays that the method does not use are null.
template <typename Compute, typename Stored = Compute>
struct MergeArrays {
  const Stored* base = nullptr;
  const Compute* base_fisher = nullptr;
  const Stored* const* models = nullptr;
  const Compute* const* fishers = nullptr;
  Stored* out = nullptr;
};

// Findings of a pass.
template <typename Compute>
struct MergeFindings {
  // Denominators of removal below the clamp; Fishers of ewr below the floor.
  int64_t clamped = 0;
  Compute largest_weight = 0; // of removal
  // False if a parameter is not finite or a Fisher is negative or not finite;
  // may be false for a Fisher of -0 too.
  bool inputs_good = true;
  // Largest magnitude before the output is rounded; NaN if a result is NaN.
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
