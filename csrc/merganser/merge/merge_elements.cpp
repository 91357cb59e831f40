#include "merganser/merge/merge_elements.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "merganser/numeric/half.h"
#include "merganser/numeric/simd.h"

namespace merganser {
namespace {

// Unsigned integers with the bits of numbers: for numbers without a sign they
// have the same order, infinity above all finite numbers, NaN above infinity.
template <typename Compute>
using BitsOf = std::conditional_t<sizeof(Compute) == 4, uint32_t, uint64_t>;

template <typename Compute>
constexpr BitsOf<Compute> kMagnitude =
    std::numeric_limits<BitsOf<Compute>>::max() >> 1;

template <typename Compute>
constexpr BitsOf<Compute> kInfinity =
    std::bit_cast<BitsOf<Compute>>(std::numeric_limits<Compute>::infinity());

// A vector of N bytes, or for N = sizeof(Compute) one Compute.
template <typename Compute, int N>
struct Lanes {
  typedef Compute Values __attribute__((vector_size(N)));
  typedef BitsOf<Compute> Bits __attribute__((vector_size(N)));
  typedef uint16_t Halves __attribute__((vector_size(N / 2)));
  static constexpr int64_t kCount = N / sizeof(Compute);
  using Mask = decltype(Values{} < Values{});
};

template <typename Compute>
struct Lanes<Compute, sizeof(Compute)> {
  using Values = Compute;
  using Bits = BitsOf<Compute>;
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

// Values from which MergeFindings is computed, one per lane.
template <typename Compute, int N>
struct Seen {
  using Bits = typename Lanes<Compute, N>::Bits;
  using Values = typename Lanes<Compute, N>::Values;
  using Halves = typename Lanes<Compute, N>::Halves;
  using Mask = typename Lanes<Compute, N>::Mask;

  // always_inline: vectors wider than the machine's cannot be arguments.
  [[gnu::always_inline]] static Bits max(Bits a, Bits b) {
    return a < b ? b : a;
  }
  template <typename Stored>
  [[gnu::always_inline]] Values parameter(const Stored* from) {
    const Values x = load(from);
    worst = max(worst, std::bit_cast<Bits>(x) & kMagnitude<Compute>);
    return x;
  }
  [[gnu::always_inline]] Values fisher(const Compute* from) {
    const Values x = load(from);
    worst = max(worst, std::bit_cast<Bits>(x)); // the sign bit is the highest
    return x;
  }
  [[gnu::always_inline]] void clamped(Mask mask) {
    clamped_count += mask ? Bits{} + 1 : Bits{};
  }
  [[gnu::always_inline]] void weight(Values x) {
    largest_weight =
        max(largest_weight, std::bit_cast<Bits>(x) & kMagnitude<Compute>);
  }
  [[gnu::always_inline]] void result(Values x) {
    largest = max(largest, std::bit_cast<Bits>(x) & kMagnitude<Compute>);
  }
  [[gnu::always_inline]] static Values load(const Compute* from) {
    Values x;
    std::memcpy(&x, from, sizeof(x));
    return x;
  }
  [[gnu::always_inline]] static Values load(const BFloat16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof(halves));
    return std::bit_cast<Values>(convert<Bits>(halves) << 16);
  }
  [[gnu::always_inline]] static void store(Values x, Compute* to) {
    std::memcpy(to, &x, sizeof(x));
  }
  [[gnu::always_inline]] static void store(Values x, BFloat16* to) {
    const auto halves = convert<Halves>(bf16_bits(std::bit_cast<Bits>(x)));
    std::memcpy(to, &halves, sizeof(halves));
  }

  Bits worst{}; // largest bits of an input
  Bits largest{}; // largest magnitude of an output
  Bits clamped_count{};
  Bits largest_weight{};
};

// Merges elements [begin, end) as far as they fill vectors of N bytes; returns
// the end of what it merged.
template <MergeFormula M, int N, typename Compute, typename Stored>
[[gnu::always_inline]] inline int64_t merge_lanes(
    const MergeScalars<Compute>& scalars,
    const MergeArrays<Compute, Stored>& a,
    int64_t begin,
    int64_t end,
    MergeFindings<Compute>& findings) {
  using Lane = Lanes<Compute, N>;
  using Values = typename Lane::Values;
  Seen<Compute, N> seen;
  int64_t i = begin;
  for (; i + Lane::kCount <= end; i += Lane::kCount) {
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
        seen);
    seen.result(merged);
    seen.store(merged, a.out + i);
  }
  BitsOf<Compute> worst[Lane::kCount], largest[Lane::kCount],
      counts[Lane::kCount], weights[Lane::kCount];
  std::memcpy(worst, &seen.worst, sizeof(worst));
  std::memcpy(largest, &seen.largest, sizeof(largest));
  std::memcpy(counts, &seen.clamped_count, sizeof(counts));
  std::memcpy(weights, &seen.largest_weight, sizeof(weights));
  auto greatest = std::bit_cast<BitsOf<Compute>>(findings.largest);
  auto heaviest = std::bit_cast<BitsOf<Compute>>(findings.largest_weight);
  for (int64_t lane = 0; lane < Lane::kCount; ++lane) {
    findings.inputs_good &= worst[lane] < kInfinity<Compute>;
    findings.clamped += static_cast<int64_t>(counts[lane]);
    greatest = std::max(greatest, largest[lane]);
    heaviest = std::max(heaviest, weights[lane]);
  }
  findings.largest = std::bit_cast<Compute>(greatest);
  findings.largest_weight = std::bit_cast<Compute>(heaviest);
  return i;
}

template <MergeFormula M, typename Compute, typename Stored>
MergeFindings<Compute> merge_loop(
    const MergeScalars<Compute>& scalars,
    const MergeArrays<Compute, Stored>& arrays,
    int64_t n) {
  MergeFindings<Compute> findings;
  widest([&]<int N>(VectorBytes<N>) {
    const int64_t rest = merge_lanes<M, N>(scalars, arrays, 0, n, findings);
    merge_lanes<M, sizeof(Compute)>(scalars, arrays, rest, n, findings);
  });
  return findings;
}

} // namespace

template <typename Compute, typename Stored>
MergeFindings<Compute> merge_elements(
    MergeFormula method,
    const MergeScalars<Compute>& scalars,
    const MergeArrays<Compute, Stored>& arrays,
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
