#pragma once

// One element of the fused AdamW + Fisher step: the only definition of the
// formula; the CPU and the CUDA kernel both call it. The operations and their
// order are those of torch.optim.AdamW, each rounded once (no FMA).

#include <cmath>
#include <cstdint>

#include "merganser/numeric/host_device.h"

namespace merganser {

// Values that all elements share. T is float or double.
template <typename T>
struct AdamScalars {
  T grad_scale;
  T beta1;
  T rest1; // 1 - beta1
  T beta2;
  T rest2; // 1 - beta2
  T decay; // 1 - lr * weight_decay
  T step_size; // lr / (1 - beta1^step)
  T root_correction; // sqrt(1 - beta2^step)
  T eps;
  T fisher_weight;
};

// Computed in double, rounded once.
template <typename T>
AdamScalars<T> make_adam_scalars(
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    int64_t step,
    double grad_scale,
    double fisher_weight) {
  const double t = static_cast<double>(step);
  return {
      static_cast<T>(grad_scale),
      static_cast<T>(beta1),
      static_cast<T>(1 - beta1),
      static_cast<T>(beta2),
      static_cast<T>(1 - beta2),
      static_cast<T>(1 - lr * weight_decay),
      static_cast<T>(lr / (1 - std::pow(beta1, t))),
      static_cast<T>(std::sqrt(1 - std::pow(beta2, t))),
      static_cast<T>(eps),
      static_cast<T>(fisher_weight)};
}

// Returns g^2 with g = grad * grad_scale, for the Fisher.
template <typename T>
MERGANSER_HOST_DEVICE inline T adam_element(
    const AdamScalars<T>& s,
    T grad,
    T& param,
    T& exp_avg,
    T& exp_avg_sq) {
  const T g = grad * s.grad_scale;
  const T square = g * g;
  exp_avg = exp_avg * s.beta1 + g * s.rest1;
  exp_avg_sq = exp_avg_sq * s.beta2 + square * s.rest2;
  const T denominator = std::sqrt(exp_avg_sq) / s.root_correction + s.eps;
  param = param * s.decay - exp_avg / denominator * s.step_size;
  return square;
}

} // namespace merganser
