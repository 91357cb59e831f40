#pragma once

// The only definition of the merge formulas, one element at a time. The CPU
// engine and the in-memory op call merge_element with vectors of elements, the
// CUDA kernel with single elements. Compiled without FMA contraction, every
// path gives the same bits.
//
// Source: Daheim et al., "Model Merging by Uncertainty-Based Gradient
// Matching", arXiv 2310.12808 (equations in docs/method.md).

#include <type_traits>

#if defined(__CUDACC__)
#define MERGANSER_FORMULA __host__ __device__
#else
#define MERGANSER_FORMULA [[gnu::always_inline]]
#endif

namespace merganser {

enum class MergeFormula : int {
  kLinear = 0,
  kTaskArithmetic = 1,
  kFisher = 2,
  kFisherBase = 3,
  kGradientMatching = 4,
  kRemoval = 5,
  kEwr = 6,
  // Take sparsified task vectors tau_t in place of parameters theta_t:
  kTaskSum = 7,
  kSignElection = 8,
};

// The last formula of parameters theta_t, which the op takes.
inline constexpr MergeFormula kLastOpFormula = MergeFormula::kEwr;

// Values that all elements share. T is float or double.
template <typename T>
struct MergeScalars {
  int count = 0; // number of models
  const T* weights = nullptr; // alpha_t, (count)
  // Factors of H_t = scale F_t: N_t, or the inverse of the mean of F_t.
  const T* scales = nullptr; // (count)
  // gradient matching: rho_t in g_t = -rho_t H_0 tau_t, the gradient that
  // expert t was left with (count); null: 1 each.
  const T* rhos = nullptr;
  T base_scale = 0;
  T delta = 0; // H_0 = base_scale F_0 + delta
  // removal: the weight is alpha_t where the denominator is below this fraction
  // of H_0 + sum alpha_t H_t.
  T clamp = 0;
  T floor = 0; // ewr: lower bound of every Fisher
  T lambda = 1; // sign election: multiplies the merged task vector
  bool normalize = false; // sign election: divide by the weights that agree
};

// x in every element: V is T or a vector of T. (A sum, since GCC 12 fills a
// constructed vector element by element. It turns -0 into 0, which no formula
// here distinguishes.)
template <typename V, typename T>
MERGANSER_FORMULA inline V broadcast(T x) {
  if constexpr (std::is_same_v<V, T>) {
    return x;
  } else {
    return x + V{};
  }
}

// Selects element by element. (Vector types without ?: provide an overload.)
template <typename Mask, typename V>
MERGANSER_FORMULA inline V select(const Mask& mask, const V& yes, const V& no) {
  return mask ? yes : no;
}

// base: theta_0; base_fisher: F_0; theta(t), fisher(t): the t-th model's
// parameter and mean Fisher, callables so that callers choose the layout. V is
// T, or a vector of T (GCC's vector_size, a Pack of kernels/) whose elements
// are merged in parallel. Calls watch.clamped(mask), a bool or a vector of
// comparison results, where removal's denominator is too small or ewr raises a
// Fisher to the floor, and watch.weight(w) with the weights of removal.
//
// Divides before it multiplies: a weight h / h is exactly 1 (merging one model
// returns it, up to the rounding of theta_0 + tau), and Fishers of 1e-30 cannot
// underflow in a product with a small parameter. Compares with == 0, so that
// NaN stays NaN.
template <
    MergeFormula M,
    typename T,
    typename V,
    typename Theta,
    typename Fisher,
    typename Watch>
MERGANSER_FORMULA inline V merge_element(
    const MergeScalars<T>& s,
    V base,
    V base_fisher,
    Theta theta,
    Fisher fisher,
    Watch& watch) {
  if constexpr (M == MergeFormula::kLinear) {
    // sum_t alpha_t theta_t; the caller normalizes the weights.
    V sum{};
    for (int t = 0; t < s.count; ++t) {
      sum += s.weights[t] * theta(t);
    }
    return sum;
  } else if constexpr (M == MergeFormula::kTaskArithmetic) {
    V sum{};
    for (int t = 0; t < s.count; ++t) {
      sum += s.weights[t] * (theta(t) - base);
    }
    return base + sum;
  } else if constexpr (M == MergeFormula::kFisher) {
    // sum alpha_t H_t theta_t / sum alpha_t H_t. Where every H_t is zero: the
    // limit of adding the same delta to each, the plain weighted mean.
    V total{};
    T plain = 0;
    for (int t = 0; t < s.count; ++t) {
      total += s.weights[t] * (s.scales[t] * fisher(t));
      plain += s.weights[t];
    }
    V sum{};
    for (int t = 0; t < s.count; ++t) {
      const V h = s.weights[t] * (s.scales[t] * fisher(t));
      const V mean = broadcast<V>(s.weights[t] / plain);
      sum += select(total == T(0), mean, h / total) * theta(t);
    }
    return sum;
  } else if constexpr (M == MergeFormula::kTaskSum) {
    // theta_0 + sum_t alpha_t tau_t
    V sum{};
    for (int t = 0; t < s.count; ++t) {
      sum += s.weights[t] * theta(t);
    }
    return base + sum;
  } else if constexpr (M == MergeFormula::kSignElection) {
    // theta_0 + lambda sum m_t alpha_t tau_t [/ sum m_t alpha_t], with m_t = 1
    // where alpha_t tau_t has the sign of sum alpha_s tau_s (of +1 for 0), else
    // 0. Zeros agree with neither sign; the comparisons propagate NaN.
    V sum{};
    for (int t = 0; t < s.count; ++t) {
      sum += s.weights[t] * theta(t);
    }
    V agreed{};
    V total{};
    for (int t = 0; t < s.count; ++t) {
      const V x = s.weights[t] * theta(t);
      const V upwards = select(x <= T(0), V{}, x);
      const V downwards = select(x >= T(0), V{}, x);
      const V kept = select(sum >= T(0), upwards, downwards);
      agreed += kept;
      total += select(kept == T(0), V{}, broadcast<V>(s.weights[t]));
    }
    if (s.normalize) {
      agreed = agreed / select(total == T(0), broadcast<V>(T(1)), total);
    }
    return base + s.lambda * agreed;
  } else if constexpr (M == MergeFormula::kEwr) {
    // (F_0 theta_0 - sum lambda F_t tau_t) / (F_0 + sum lambda F_t), every
    // Fisher at least `floor`.
    const V floor = broadcast<V>(s.floor);
    const V f0 = select(base_fisher < floor, floor, base_fisher);
    watch.clamped(base_fisher < floor);
    V total = f0;
    for (int t = 0; t < s.count; ++t) {
      const V f = fisher(t);
      watch.clamped(f < floor);
      total += s.weights[t] * select(f < floor, floor, f);
    }
    V sum = f0 / total * base;
    for (int t = 0; t < s.count; ++t) {
      const V f = fisher(t);
      const V weighted = s.weights[t] * select(f < floor, floor, f);
      sum -= weighted / total * (theta(t) - base);
    }
    return sum;
  } else {
    // theta_0 +- sum alpha_t A_t tau_t / B with B = H_0 +- sum alpha_s H_s and
    // A_t = rho_t H_0 + H_t: rho_t is 1 for removal and, unless given, gradient
    // matching, 0 for Fisher averaging with the base as one more model.
    const V h0 = s.base_scale * base_fisher + s.delta;
    V total{};
    for (int t = 0; t < s.count; ++t) {
      total += s.weights[t] * (s.scales[t] * fisher(t));
    }
    V denominator = h0 + total;
    if constexpr (M == MergeFormula::kRemoval) {
      // If D_t is part of D_0, H_0 contains H_t. Where sum alpha_s H_s is
      // nearly all of H_0 or more, the estimates contradict that: the quotient
      // is then unknown, and 0 stands for it, which gives the weight alpha_t
      // below. So no weight exceeds max(1, alpha_t) / clamp.
      const V lowest = s.clamp * denominator;
      denominator = h0 - total;
      watch.clamped(denominator < lowest);
      denominator = select(denominator < lowest, V{}, denominator);
    }
    V sum{};
    for (int t = 0; t < s.count; ++t) {
      T rho = 1;
      const V h = s.scales[t] * fisher(t);
      V a = h;
      if constexpr (M == MergeFormula::kGradientMatching) {
        if (s.rhos != nullptr) {
          rho = s.rhos[t];
        }
        a = rho * h0 + h;
      } else if constexpr (M == MergeFormula::kRemoval) {
        a = h0 + h;
      }
      a = s.weights[t] * a;
      // All Fishers zero, the limit of H_0 -> 0: rho_t times task arithmetic
      // (removal: its negation). For Fisher averaging that is the base, which
      // is then the only model with a Fisher.
      const V none = broadcast<V>(
          M == MergeFormula::kFisherBase ? T(0) : rho * s.weights[t]);
      const V weight = select(denominator == T(0), none, a / denominator);
      if constexpr (M == MergeFormula::kRemoval) {
        watch.weight(weight);
      }
      sum += weight * (theta(t) - base);
    }
    return M == MergeFormula::kRemoval ? base - sum : base + sum;
  }
}

} // namespace merganser
