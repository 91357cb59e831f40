#include "merganser/merge/merge_elements.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "merganser/numeric/half.h"
#include "merganser/numeric/simd.h"

namespace merganser {
namespace {

// Numbers as unsigned integers: of the same order for those without a sign,
// infinity above all finite ones, NaN above infinity.
template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

template <typename T>
constexpr BitsOf<T> kMagnitude = std::numeric_limits<BitsOf<T>>::max() >> 1;

template <typename T>
constexpr BitsOf<T> kInfinity =
    std::bit_cast<BitsOf<T>>(std::numeric_limits<T>::infinity());

// A vector of N bytes, or for N = sizeof(T) one T.
template <typename T, int N>
struct Lanes {
  typedef T Values __attribute__((vector_size(N)));
  typedef BitsOf<T> Bits __attribute__((vector_size(N)));
  typedef uint16_t Halves __attribute__((vector_size(N / 2)));
  static constexpr int64_t kCount = N / sizeof(T);
  using Mask = decltype(Values{} < Values{});
};

template <typename T>
struct Lanes<T, sizeof(T)> {
  using Values = T;
  using Bits = BitsOf<T>;
  using Halves = uint16_t;
  static constexpr int64_t kCount = 1;
  using Mask = bool;
};

template <typename To, typename From>
[[gnu::always_inline]] inline To convert(From from) {
  if constexpr (std::is_integral_v<To>) {
    return static_cast<To>(from);
  } else {
    return __builtin_convertvector(from, To);
  }
}

// What MergeFindings is made of, in every lane.
template <typename T, int N>
struct Seen {
  using Bits = typename Lanes<T, N>::Bits;
  using Values = typename Lanes<T, N>::Values;
  using Halves = typename Lanes<T, N>::Halves;

  // always_inline: vectors wider than the machine's cannot be passed.
  [[gnu::always_inline]] static Bits max(Bits a, Bits b) {
    return a < b ? b : a;
  }
  template <typename P>
  [[gnu::always_inline]] Values parameter(const P* from) {
    const Values x = load(from);
    worst = max(worst, std::bit_cast<Bits>(x) & kMagnitude<T>);
    return x;
  }
  [[gnu::always_inline]] Values fisher(const T* from) {
    const Values x = load(from);
    worst = max(worst, std::bit_cast<Bits>(x)); // the sign bit is the highest
    return x;
  }
  [[gnu::always_inline]] void result(Values x) {
    largest = max(largest, std::bit_cast<Bits>(x) & kMagnitude<T>);
  }
  [[gnu::always_inline]] static Values load(const T* from) {
    Values x;
    std::memcpy(&x, from, sizeof(x));
    return x;
  }
  [[gnu::always_inline]] static Values load(const BFloat16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof(halves));
    return std::bit_cast<Values>(convert<Bits>(halves) << 16);
  }
  [[gnu::always_inline]] static void store(Values x, T* to) {
    std::memcpy(to, &x, sizeof(x));
  }
  [[gnu::always_inline]] static void store(Values x, BFloat16* to) {
    const auto halves = convert<Halves>(bf16_bits(std::bit_cast<Bits>(x)));
    std::memcpy(to, &halves, sizeof(halves));
  }

  Bits worst{}; // input
  Bits largest{}; // output
};

// Elements [begin, end) as far as they fill vectors of N bytes; returns where
// it stopped.
template <MergeFormula M, int N, typename T, typename P>
[[gnu::always_inline]] inline int64_t merge_lanes(
    const MergeScalars<T>& scalars,
    const MergeArrays<T, P>& a,
    int64_t begin,
    int64_t end,
    MergeFindings<T>& findings) {
  using Lane = Lanes<T, N>;
  using Values = typename Lane::Values;
  Seen<T, N> seen;
  typename Lane::Bits clamped_count{};
  int64_t i = begin;
  for (; i + Lane::kCount <= end; i += Lane::kCount) {
    typename Lane::Mask clamped{};
    const Values merged = merge_element<M>(
        scalars,
        a.base ? seen.parameter(a.base + i) : Values{},
        a.base_fisher ? seen.fisher(a.base_fisher + i) : Values{},
        [&](int t) __attribute__((always_inline)) {
          return seen.parameter(a.models[t] + i);
        },
        [&](int t) __attribute__((always_inline)) {
          return seen.fisher(a.fishers[t] + i);
        },
        clamped);
    if constexpr (M == MergeFormula::kRemoval) {
      const typename Lane::Bits one = typename Lane::Bits{} + 1;
      clamped_count += clamped ? one : typename Lane::Bits{};
    }
    seen.result(merged);
    seen.store(merged, a.out + i);
  }
  BitsOf<T> worst[Lane::kCount], largest[Lane::kCount], counts[Lane::kCount];
  std::memcpy(worst, &seen.worst, sizeof(worst));
  std::memcpy(largest, &seen.largest, sizeof(largest));
  std::memcpy(counts, &clamped_count, sizeof(counts));
  auto most = std::bit_cast<BitsOf<T>>(findings.largest);
  for (int64_t lane = 0; lane < Lane::kCount; ++lane) {
    findings.inputs_good &= worst[lane] < kInfinity<T>;
    findings.clamped += static_cast<int64_t>(counts[lane]);
    most = std::max(most, largest[lane]);
  }
  findings.largest = std::bit_cast<T>(most);
  return i;
}

template <MergeFormula M, typename T, typename P>
MergeFindings<T> merge_loop(
    const MergeScalars<T>& scalars,
    const MergeArrays<T, P>& arrays,
    int64_t n) {
  MergeFindings<T> findings;
  widest([&]<int N>(VectorBytes<N>) {
    const int64_t rest = merge_lanes<M, N>(scalars, arrays, 0, n, findings);
    merge_lanes<M, sizeof(T)>(scalars, arrays, rest, n, findings);
  });
  return findings;
}

} // namespace

template <typename T, typename P>
MergeFindings<T> merge_elements(
    MergeFormula method,
    const MergeScalars<T>& scalars,
    const MergeArrays<T, P>& arrays,
    int64_t n) {
  switch (method) {
    case MergeFormula::kLinear:
      return merge_loop<MergeFormula::kLinear>(scalars, arrays, n);
    case MergeFormula::kTaskArithmetic:
      return merge_loop<MergeFormula::kTaskArithmetic>(scalars, arrays, n);
    case MergeFormula::kFisher:
      return merge_loop<MergeFormula::kFisher>(scalars, arrays, n);
    case MergeFormula::kFisherBase:
      return merge_loop<MergeFormula::kFisherBase>(scalars, arrays, n);
    case MergeFormula::kGradientMatching:
      return merge_loop<MergeFormula::kGradientMatching>(scalars, arrays, n);
    case MergeFormula::kRemoval:
      return merge_loop<MergeFormula::kRemoval>(scalars, arrays, n);
    case MergeFormula::kEwr:
      return merge_loop<MergeFormula::kEwr>(scalars, arrays, n);
    case MergeFormula::kTaskSum:
      return merge_loop<MergeFormula::kTaskSum>(scalars, arrays, n);
    case MergeFormula::kSignElection:
      return merge_loop<MergeFormula::kSignElection>(scalars, arrays, n);
  }
  return {};
}

template MERGANSER_API MergeFindings<float> merge_elements(
    MergeFormula,
    const MergeScalars<float>&,
    const MergeArrays<float>&,
    int64_t);
template MERGANSER_API MergeFindings<float> merge_elements(
    MergeFormula,
    const MergeScalars<float>&,
    const MergeArrays<float, BFloat16>&,
    int64_t);
template MERGANSER_API MergeFindings<double> merge_elements(
    MergeFormula,
    const MergeScalars<double>&,
    const MergeArrays<double>&,
    int64_t);

} // namespace merganser
