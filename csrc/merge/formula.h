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
  const T* scales =
      nullptr; // N_t: H_t = N_t F_t, (count); null without Fishers
  T base_scale = 0; // N_0
  T delta = 0; // H_0 = N_0 F_0 + delta
  T clamp = 0; // removal: the denominator is at least clamp * H_0
  T floor = 0; // ewr: every Fisher is at least this
};

// base: theta_0; base_fisher: F_0; theta(t), fisher(t): the t-th model's
// parameter and mean Fisher, callables so that callers choose the layout.
// `clamped` is set to true where removal's denominator was clamped.
template <MergeMethod M, typename T, typename Theta, typename Fisher>
MERGANSER_HOST_DEVICE inline T merge_element(
    const MergeScalars<T>& s,
    T base,
    T base_fisher,
    Theta theta,
    Fisher fisher,
    bool& clamped) {
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
    T numerator = 0;
    T denominator = 0;
    T plain = 0;
    T weight = 0;
    for (int t = 0; t < s.count; ++t) {
      const T h = s.weights[t] * (s.scales[t] * fisher(t));
      numerator += h * theta(t);
      denominator += h;
      plain += s.weights[t] * theta(t);
      weight += s.weights[t];
    }
    return denominator > 0 ? numerator / denominator : plain / weight;
  } else if constexpr (M == MergeMethod::kEwr) {
    // (F_0 theta_0 - sum lambda F_t tau_t) / (F_0 + sum lambda F_t), floored.
    const T f0 = base_fisher > s.floor ? base_fisher : s.floor;
    T numerator = f0 * base;
    T denominator = f0;
    for (int t = 0; t < s.count; ++t) {
      const T f = fisher(t) > s.floor ? fisher(t) : s.floor;
      numerator -= s.weights[t] * f * (theta(t) - base);
      denominator += s.weights[t] * f;
    }
    return numerator / denominator;
  } else {
    // theta_0 +- sum alpha_t A_t tau_t / B with B = H_0 +- sum alpha_s H_s and
    // A_t = H_0 + H_t (gradient matching, removal) or H_t (Fisher averaging
    // with the base as one more model).
    const T h0 = s.base_scale * base_fisher + s.delta;
    T numerator = 0;
    T plain = 0;
    T sum = 0;
    for (int t = 0; t < s.count; ++t) {
      const T h = s.scales[t] * fisher(t);
      const T tau = s.weights[t] * (theta(t) - base);
      numerator += (M == MergeMethod::kFisherBase ? h : h0 + h) * tau;
      plain += tau;
      sum += s.weights[t] * h;
    }
    if constexpr (M == MergeMethod::kRemoval) {
      const T lowest = s.clamp * h0;
      T denominator = h0 - sum;
      clamped = denominator < lowest;
      if (clamped) {
        denominator = lowest;
      }
      // All Fishers zero: the limit of H_0 -> 0, task arithmetic.
      return denominator > 0 ? base - numerator / denominator : base - plain;
    } else {
      const T denominator = h0 + sum;
      if (denominator > 0) {
        return base + numerator / denominator;
      }
      // All Fishers zero, the limit of H_0 -> 0: weight 1 (gradient matching)
      // or 0 (Fisher averaging, where the base alone has a Fisher).
      return M == MergeMethod::kFisherBase ? base : base + plain;
    }
  }
}

} // namespace merganser
