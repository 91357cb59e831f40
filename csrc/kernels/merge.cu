// One thread merges one element at a time, by merge/formula.h; neighbouring
// threads read neighbouring elements of each of the sources, whose types may
// differ (a branch that all threads take alike). The formulas read the models
// twice; the second time they are in the first-level cache.

#include <algorithm>

#include "kernels/elementwise.cuh"
#include "kernels/kernels.h"

namespace merganser::kernels {
namespace {

template <typename T>
__device__ T read(const Source& source, int64_t i) {
  switch (source.type) {
    case Type::kBFloat16:
      return widen(static_cast<const __nv_bfloat16*>(source.data)[i]);
    case Type::kHalf:
      return widen(static_cast<const __half*>(source.data)[i]);
    case Type::kDouble:
      return static_cast<T>(static_cast<const double*>(source.data)[i]);
    case Type::kFloat:
      break;
  }
  return static_cast<const float*>(source.data)[i];
}

template <typename T>
__device__ void write(void* out, Type type, int64_t i, T value) {
  switch (type) {
    case Type::kBFloat16:
      // From float: from double it would be rounded twice, as on the CPU.
      static_cast<__nv_bfloat16*>(out)[i] =
          __float2bfloat16_rn(static_cast<float>(value));
      break;
    case Type::kHalf:
      static_cast<__half*>(out)[i] = __float2half_rn(static_cast<float>(value));
      break;
    case Type::kDouble:
      static_cast<double*>(out)[i] = value;
      break;
    case Type::kFloat:
      static_cast<float*>(out)[i] = static_cast<float>(value);
      break;
  }
}

template <MergeFormula M, typename T>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const __grid_constant__ MergeArguments<T> a) {
  MergeScalars<T> scalars = a.scalars;
  scalars.weights = a.weights;
  scalars.scales = a.scales;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < a.n;
       i += stride) {
    bool clamped;
    const T merged = merge_element<M>(
        scalars,
        a.base.data ? read<T>(a.base, i) : T(0),
        a.base_fisher.data ? read<T>(a.base_fisher, i) : T(0),
        [&](int t) { return read<T>(a.models[t], i); },
        [&](int t) { return read<T>(a.fishers[t], i); },
        clamped);
    write(a.out, a.out_type, i, merged);
  }
}

template <MergeFormula M, typename T>
void launch_method(const MergeArguments<T>& arguments, cudaStream_t stream) {
  const int64_t blocks = (arguments.n + kThreads - 1) / kThreads;
  merge_kernel<M>
      <<<static_cast<unsigned>(std::min(blocks, kMaxBlocks)),
         kThreads,
         0,
         stream>>>(arguments);
}

} // namespace

template <typename T>
void launch_merge(
    MergeFormula method,
    const MergeArguments<T>& arguments,
    cudaStream_t stream) {
  if (arguments.n == 0) {
    return;
  }
  switch (method) {
    case MergeFormula::kLinear:
      return launch_method<MergeFormula::kLinear>(arguments, stream);
    case MergeFormula::kTaskArithmetic:
      return launch_method<MergeFormula::kTaskArithmetic>(arguments, stream);
    case MergeFormula::kFisher:
      return launch_method<MergeFormula::kFisher>(arguments, stream);
    case MergeFormula::kFisherBase:
      return launch_method<MergeFormula::kFisherBase>(arguments, stream);
    case MergeFormula::kGradientMatching:
      return launch_method<MergeFormula::kGradientMatching>(arguments, stream);
    case MergeFormula::kRemoval:
      return launch_method<MergeFormula::kRemoval>(arguments, stream);
    case MergeFormula::kEwr:
      return launch_method<MergeFormula::kEwr>(arguments, stream);
    case MergeFormula::kTaskSum:
      return launch_method<MergeFormula::kTaskSum>(arguments, stream);
    case MergeFormula::kSignElection:
      return launch_method<MergeFormula::kSignElection>(arguments, stream);
  }
}

template void launch_merge(
    MergeFormula,
    const MergeArguments<float>&,
    cudaStream_t);
template void launch_merge(
    MergeFormula,
    const MergeArguments<double>&,
    cudaStream_t);

} // namespace merganser::kernels
