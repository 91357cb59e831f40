// One thread merges N neighbouring elements with numeric/merge_formula.h. It
// first copies the elements of all sources (at most 16 bytes each)
// asynchronously to its own places in shared memory. This keeps memory busy for
// any number of models, fetches each number once although the formulas read the
// models twice, and leaves the registers to the formula.

#include <algorithm>
#include <type_traits>

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/kernels.h"
#include "merganser/kernels/pack_arithmetic.cuh"
#include "merganser/numeric/block_count.h"
#include "merganser/numeric/host_device.h"

namespace merganser::kernels {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kMinThreads = 32;
constexpr size_t kSharedBytes = 48 * 1024; // limit of every device

// Calls f(E()) with the element type E; N elements take at most 16 bytes.
template <int N, typename F>
__device__ auto by_type(Type type, F f) {
  if constexpr (N * sizeof(double) <= 16) {
    if (type == Type::kDouble) {
      return f(double());
    }
  }
  if constexpr (N * sizeof(float) <= 16) {
    if (type == Type::kFloat) {
      return f(float());
    }
  }
  if (type == Type::kBFloat16) {
    return f(__nv_bfloat16());
  }
  return f(__half());
}

size_t bytes_of(Type type) {
  switch (type) {
    case Type::kDouble:
      return 8;
    case Type::kFloat:
      return 4;
    case Type::kBFloat16:
    case Type::kHalf:
      break;
  }
  return 2;
}

template <int N>
__device__ void fetch(uint4& place, const Source& source, int64_t i) {
  by_type<N>(source.type, [&](auto zero) {
    using E = decltype(zero);
    const E* const from = static_cast<const E*>(source.data) + i;
    if constexpr (N * sizeof(E) >= 4) {
      copy_async<N * sizeof(E)>(&place, from);
    } else {
      *reinterpret_cast<E*>(&place) = *from;
    }
  });
}

template <typename T, int N>
__device__ Pack<T, N> fetched(const uint4& place, const Source& source) {
  return by_type<N>(source.type, [&](auto zero) {
    const auto pack = load<N>(reinterpret_cast<const decltype(zero)*>(&place));
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      result.value[k] = static_cast<T>(widen(pack.value[k]));
    }
    return result;
  });
}

template <typename T, int N>
__device__ void write(void* out, Type type, int64_t i, const Pack<T, N>& pack) {
  by_type<N>(type, [&](auto zero) {
    using E = decltype(zero);
    // Halves convert from float. A double rounds to float first, as on the CPU.
    using From = std::conditional_t<sizeof(E) == 2, float, E>;
    Pack<E, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      result.value[k] = static_cast<E>(static_cast<From>(pack.value[k]));
    }
    store(static_cast<E*>(out) + i, result);
  });
}

// Only the CPU counts what formulas clamp.
struct Unwatched {
  template <typename Mask>
  MERGANSER_HOST_DEVICE void clamped(const Mask&) {}
  template <typename V>
  MERGANSER_HOST_DEVICE void weight(const V&) {}
};

// Merges the elements [i, i + N).
template <MergeFormula M, int N, typename T>
__device__ void merge_pack(
    const MergeArguments<T>& a,
    const MergeScalars<T>& scalars,
    int64_t i) {
  const int count = scalars.count;
  const auto place = [](int number) -> uint4& {
    return launch_shared()[number * blockDim.x + threadIdx.x];
  };
  const auto models = [&](int t) -> uint4& { return place(2 + t); };
  const auto fishers = [&](int t) -> uint4& { return place(2 + count + t); };
  for (int t = 0; t < count; ++t) {
    fetch<N>(models(t), a.models[t], i);
    if (a.fishers[t].data) {
      fetch<N>(fishers(t), a.fishers[t], i);
    }
  }
  if (a.base.data) {
    fetch<N>(place(0), a.base, i);
  }
  if (a.base_fisher.data) {
    fetch<N>(place(1), a.base_fisher, i);
  }
  commit_copies();
  wait_for_copies<0>();
  Unwatched unwatched;
  const Pack<T, N> merged = merge_element<M>(
      scalars,
      a.base.data ? fetched<T, N>(place(0), a.base) : Pack<T, N>{},
      a.base_fisher.data ? fetched<T, N>(place(1), a.base_fisher)
                         : Pack<T, N>{},
      [&](int t) { return fetched<T, N>(models(t), a.models[t]); },
      [&](int t) { return fetched<T, N>(fishers(t), a.fishers[t]); },
      unwatched);
  write(a.out, a.out_type, i, merged);
}

// A thread merges N of the first `packed` elements at a time, the rest one by
// one.
template <MergeFormula M, int N, typename T>
__global__ void __launch_bounds__(kMaxThreads, 1)
    merge_kernel(const __grid_constant__ MergeArguments<T> a, int64_t packed) {
  MergeScalars<T> scalars = a.scalars;
  scalars.weights = a.weights;
  scalars.scales = a.scales;
  scalars.rhos = a.rhos;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = thread * N; i < packed; i += stride * N) {
    merge_pack<M, N>(a, scalars, i);
  }
  for (int64_t i = packed + thread; i < a.n; i += stride) {
    merge_pack<M, 1>(a, scalars, i);
  }
}

// True if all arrays, including the output, pass.
template <typename T, typename F>
bool all_arrays(const MergeArguments<T>& a, F passes) {
  const auto passes_all = [&](const Source* sources) {
    return std::all_of(sources, sources + a.scalars.count, passes);
  };
  return passes(a.base) && passes(a.base_fisher) && passes_all(a.models) &&
      passes_all(a.fishers) && passes(Source{a.out, a.out_type});
}

template <MergeFormula M, int N, typename T>
void launch_packs(const MergeArguments<T>& a, cudaStream_t stream) {
  const bool aligned = all_arrays(a, [](const Source& source) {
    const auto address = reinterpret_cast<uintptr_t>(source.data);
    return address % (N * bytes_of(source.type)) == 0;
  });
  const size_t sources = 2 + a.scalars.count * (a.fishers[0].data ? 2 : 1);
  int threads = kMaxThreads;
  while (threads > kMinThreads &&
         threads * sources * sizeof(uint4) > kSharedBytes) {
    threads /= 2;
  }
  launch(
      {block_count(a.n, threads * N),
       static_cast<unsigned>(threads),
       stream,
       threads * sources * sizeof(uint4)},
      merge_kernel<M, N, T>,
      a,
      aligned ? a.n / N * N : 0);
}

template <MergeFormula M, typename T>
void launch_formula(const MergeArguments<T>& a, cudaStream_t stream) {
  if constexpr (std::is_same_v<T, float>) {
    const bool halves = all_arrays(a, [](const Source& source) {
      return !source.data || bytes_of(source.type) == 2;
    });
    if (halves) {
      return launch_packs<M, 8>(a, stream);
    }
  }
  launch_packs<M, 16 / sizeof(T)>(a, stream);
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
      return launch_formula<MergeFormula::kLinear>(arguments, stream);
    case MergeFormula::kTaskArithmetic:
      return launch_formula<MergeFormula::kTaskArithmetic>(arguments, stream);
    case MergeFormula::kFisher:
      return launch_formula<MergeFormula::kFisher>(arguments, stream);
    case MergeFormula::kFisherBase:
      return launch_formula<MergeFormula::kFisherBase>(arguments, stream);
    case MergeFormula::kGradientMatching:
      return launch_formula<MergeFormula::kGradientMatching>(arguments, stream);
    case MergeFormula::kRemoval:
      return launch_formula<MergeFormula::kRemoval>(arguments, stream);
    case MergeFormula::kEwr:
      return launch_formula<MergeFormula::kEwr>(arguments, stream);
    case MergeFormula::kTaskSum:
      return launch_formula<MergeFormula::kTaskSum>(arguments, stream);
    case MergeFormula::kSignElection:
      return launch_formula<MergeFormula::kSignElection>(arguments, stream);
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
