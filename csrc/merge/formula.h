#pragma once

// The merge formulas, one element at a time: the only place where they are
// written. The CPU engine, the in-memory op and the CUDA kernel all call
// merge_element. Compiled without FMA contraction, every path gives the same
// bits.
//
// Source: Daheim et al., "Model Merging by Uncertainty-Based Gradient
// Matching", arXiv 2310.12808 (equations in docs/method.md).

#if defined(__CUDACC__)
#define MERGANSER_HOST_DEVICE __host__ __device__
#else
#define MERGANSER_HOST_DEVICE
#endif

namespace merganser {

enum class MergeMethod : int {
  kLinear = 0,
  kTaskArithmetic = 1,
  kFisher = 2,
  kFisherBase = 3,
  kGradientMatching = 4,
  kRemoval = 5,
  kEwr = 6,
};

// What does not change from element to element. T is float or double.
template <typename T>
struct MergeScalars {
  int count = 0; // number of models
  const T* weights = nullptr; // alpha_t, (count)
  const T* scales = nullptr; // N_t: H_t = N_t F_t, (count)
  T base_scale = 0; // N_0
  T delta = 0; // H_0 = N_0 F_0 + delta
  T clamp = 0; // removal: least denominator, as a share of H_0 + sum H_t
  T floor = 0; // ewr: every Fisher is at least this
};

// base: theta_0; base_fisher: F_0; theta(t), fisher(t): the t-th model's
// parameter and mean Fisher, callables so that callers choose the layout.
// `clamped` is set where removal's denominator was clamped.
//
// Quotients are taken before products: a weight h / h is exactly 1 (one model
// comes back, but for the rounding of theta_0 + tau), and Fishers of 1e-30
// cannot underflow in a product with a small parameter. Comparisons are with ==
// 0, so that NaN stays NaN.
template <MergeMethod M, typename T, typename Theta, typename Fisher>
MERGANSER_HOST_DEVICE inline T merge_element(
    const MergeScalars<T>& s,
    T base,
    T base_fisher,
    Theta theta,
    Fisher fisher,
    bool& clamped) {
  clamped = false;
  if constexpr (M == MergeMethod::kLinear) {
    // sum_t alpha_t theta_t; the caller normalises the weights.
    T sum = 0;
    for (int t = 0; t < s.count; ++t) {
      sum += s.weights[t] * theta(t);
    }
    return sum;
  } else if constexpr (M == MergeMethod::kTaskArithmetic) {
    T sum = 0;
    for (int t = 0; t < s.count; ++t) {
      sum += s.weights[t] * (theta(t) - base);
    }
    return base + sum;
  } else if constexpr (M == MergeMethod::kFisher) {
    // sum alpha_t H_t theta_t / sum alpha_t H_t. Where every H_t is zero: the
    // limit of adding the same delta to each, the plain weighted mean.
    T total = 0;
    T plain = 0;
    for (int t = 0; t < s.count; ++t) {
      total += s.weights[t] * (s.scales[t] * fisher(t));
      plain += s.weights[t];
    }
    T sum = 0;
    for (int t = 0; t < s.count; ++t) {
      const T h = s.weights[t] * (s.scales[t] * fisher(t));
      sum += (total == 0 ? s.weights[t] / plain : h / total) * theta(t);
    }
    return sum;
  } else if constexpr (M == MergeMethod::kEwr) {
    // (F_0 theta_0 - sum lambda F_t tau_t) / (F_0 + sum lambda F_t), every
    // Fisher at least `floor`.
    const T f0 = base_fisher < s.floor ? s.floor : base_fisher;
    T total = f0;
    for (int t = 0; t < s.count; ++t) {
      total += s.weights[t] * (fisher(t) < s.floor ? s.floor : fisher(t));
    }
    T sum = f0 / total * base;
    for (int t = 0; t < s.count; ++t) {
      const T f = s.weights[t] * (fisher(t) < s.floor ? s.floor : fisher(t));
      sum -= f / total * (theta(t) - base);
    }
    return sum;
  } else {
    // theta_0 +- sum alpha_t A_t tau_t / B with B = H_0 +- sum alpha_s H_s and
    // A_t = H_0 + H_t (gradient matching, removal) or H_t (Fisher averaging
    // with the base as one more model).
    const T h0 = s.base_scale * base_fisher + s.delta;
    T total = 0;
    for (int t = 0; t < s.count; ++t) {
      total += s.weights[t] * (s.scales[t] * fisher(t));
    }
    T denominator = h0 + total;
    if constexpr (M == MergeMethod::kRemoval) {
      // A fraction of H_0 + sum alpha_s H_s, not of H_0 alone: it bounds every
      // weight by max(1, alpha_t) / clamp. A token row that the base's Fisher
      // has not seen and the removed data's has would otherwise get the weight
      // H_t / delta.
      const T lowest = s.clamp * denominator;
      denominator = h0 - total;
      clamped = denominator < lowest;
      denominator = clamped ? lowest : denominator;
    }
    T sum = 0;
    for (int t = 0; t < s.count; ++t) {
      const T h = s.scales[t] * fisher(t);
      const T a = s.weights[t] * (M == MergeMethod::kFisherBase ? h : h0 + h);
      // All Fishers zero, the limit of H_0 -> 0: task arithmetic, or the base
      // where it is one more model, the only one with a Fisher.
      const T none = M == MergeMethod::kFisherBase ? T(0) : s.weights[t];
      sum += (denominator == 0 ? none : a / denominator) * (theta(t) - base);
    }
    return M == MergeMethod::kRemoval ? base - sum : base + sum;
  }
}

} // namespace merganser
