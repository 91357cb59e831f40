#include "merge/elementwise.h"

namespace merganser {
namespace {

template <MergeMethod M, typename T>
int64_t merge_loop(
    const MergeScalars<T>& scalars,
    const MergeArrays<T>& a,
    int64_t n) {
  int64_t clamped_count = 0;
  for (int64_t i = 0; i < n; ++i) {
    bool clamped;
    a.out[i] = merge_element<M>(
        scalars,
        a.base ? a.base[i] : T(0),
        a.base_fisher ? a.base_fisher[i] : T(0),
        [&](int t) { return a.models[t][i]; },
        [&](int t) { return a.fishers[t][i]; },
        clamped);
    clamped_count += clamped;
  }
  return clamped_count;
}

} // namespace

template <typename T>
int64_t merge_elements(
    MergeMethod method,
    const MergeScalars<T>& scalars,
    const MergeArrays<T>& arrays,
    int64_t n) {
  switch (method) {
    case MergeMethod::kLinear:
      return merge_loop<MergeMethod::kLinear>(scalars, arrays, n);
    case MergeMethod::kTaskArithmetic:
      return merge_loop<MergeMethod::kTaskArithmetic>(scalars, arrays, n);
    case MergeMethod::kFisher:
      return merge_loop<MergeMethod::kFisher>(scalars, arrays, n);
    case MergeMethod::kFisherBase:
      return merge_loop<MergeMethod::kFisherBase>(scalars, arrays, n);
    case MergeMethod::kGradientMatching:
      return merge_loop<MergeMethod::kGradientMatching>(scalars, arrays, n);
    case MergeMethod::kRemoval:
      return merge_loop<MergeMethod::kRemoval>(scalars, arrays, n);
    case MergeMethod::kEwr:
      return merge_loop<MergeMethod::kEwr>(scalars, arrays, n);
  }
  return 0;
}

template MERGANSER_API int64_t merge_elements(
    MergeMethod,
    const MergeScalars<float>&,
    const MergeArrays<float>&,
    int64_t);
template MERGANSER_API int64_t merge_elements(
    MergeMethod,
    const MergeScalars<double>&,
    const MergeArrays<double>&,
    int64_t);

} // namespace merganser
