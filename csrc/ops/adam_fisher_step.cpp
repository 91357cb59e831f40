// One AdamW step and the running sum of squared gradients, in one pass. The
// formula is in kernels/adam_formula.h.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/adam_formula.h"
#include "kernels/widest.h"
#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/dispatcher.h"
#include "ops/reference.h"

namespace merganser::ops {

void adam_fisher_step_(
    at::Tensor& param,
    const at::Tensor& grad,
    at::Tensor& exp_avg,
    at::Tensor& exp_avg_sq,
    const std::optional<at::Tensor>& fisher,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    int64_t step,
    double grad_scale,
    double fisher_weight) {
  static const auto op =
      find_op("merganser::adam_fisher_step_", adam_fisher_step_);
  op.call(
      param,
      grad,
      exp_avg,
      exp_avg_sq,
      fisher,
      lr,
      beta1,
      beta2,
      eps,
      weight_decay,
      step,
      grad_scale,
      fisher_weight);
}

void adam_fisher_step_reference_(
    at::Tensor& param,
    const at::Tensor& grad,
    at::Tensor& exp_avg,
    at::Tensor& exp_avg_sq,
    const std::optional<at::Tensor>& fisher,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    int64_t step,
    double grad_scale,
    double fisher_weight) {
  const double correction1 = 1 - std::pow(beta1, step);
  const double correction2 = 1 - std::pow(beta2, step);
  const at::Tensor g = grad.to(param.scalar_type()).mul(grad_scale);
  const at::Tensor square = g.mul(g);
  exp_avg.mul_(beta1).add_(g.mul(1 - beta1));
  exp_avg_sq.mul_(beta2).add_(square.mul(1 - beta2));
  // By way of float64, because ATen's float32 root (MKL's) is not always
  // rounded correctly.
  const at::Tensor root =
      exp_avg_sq.to(at::kDouble).sqrt().to(param.scalar_type());
  const at::Tensor denominator = root.div(std::sqrt(correction2)).add_(eps);
  param.mul_(1 - lr * weight_decay)
      .sub_(exp_avg.div(denominator).mul_(lr / correction1));
  if (fisher) {
    fisher->add_(square.mul(fisher_weight));
  }
}

void check_adam_fisher_step_(
    at::Tensor& param,
    const at::Tensor& grad,
    at::Tensor& exp_avg,
    at::Tensor& exp_avg_sq,
    const std::optional<at::Tensor>& fisher,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    int64_t step,
    double grad_scale,
    double fisher_weight) {
  constexpr const char* kOp = "adam_fisher_step_";
  check_accumulator(kOp, "param", param);
  check_input(kOp, "grad", grad, param);
  check_shape(kOp, "grad", grad, param.sizes());
  const auto check_state = [&](const char* name, const at::Tensor& state) {
    check_accumulator(kOp, name, state);
    check_same_dtype(kOp, name, state, "param", param);
    check_device(kOp, name, state, param);
    check_shape(kOp, name, state, param.sizes());
  };
  check_state("exp_avg", exp_avg);
  check_state("exp_avg_sq", exp_avg_sq);
  if (fisher) {
    check_state("fisher", *fisher);
  }
  const auto check_range = [&](const char* name, double value, bool good) {
    TORCH_CHECK(good, kOp, ": ", name, " is out of range: ", value);
  };
  check_range("lr", lr, lr >= 0 && std::isfinite(lr));
  check_range("beta1", beta1, beta1 >= 0 && beta1 < 1);
  check_range("beta2", beta2, beta2 >= 0 && beta2 < 1);
  check_range("eps", eps, eps >= 0 && std::isfinite(eps));
  check_range("weight_decay", weight_decay, std::isfinite(weight_decay));
  check_range("grad_scale", grad_scale, std::isfinite(grad_scale));
  check_range("fisher_weight", fisher_weight, std::isfinite(fisher_weight));
  TORCH_CHECK(step >= 1, kOp, ": step counts from 1, got ", step);
}

namespace {

void adam_fisher_step_cpu(
    at::Tensor& param,
    const at::Tensor& grad,
    at::Tensor& exp_avg,
    at::Tensor& exp_avg_sq,
    const std::optional<at::Tensor>& fisher,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    int64_t step,
    double grad_scale,
    double fisher_weight) {
  check_adam_fisher_step_(
      param,
      grad,
      exp_avg,
      exp_avg_sq,
      fisher,
      lr,
      beta1,
      beta2,
      eps,
      weight_decay,
      step,
      grad_scale,
      fisher_weight);
  const at::Tensor input = kernel_input(grad, param.scalar_type());
  dispatch_types(param, input, [&]<typename T, typename In>() {
    const AdamScalars<T> scalars = make_adam_scalars<T>(
        lr, beta1, beta2, eps, weight_decay, step, grad_scale, fisher_weight);
    const In* const g = input.const_data_ptr<In>();
    T* const p = param.data_ptr<T>();
    T* const m = exp_avg.data_ptr<T>();
    T* const v = exp_avg_sq.data_ptr<T>();
    T* const f = fisher ? fisher->data_ptr<T>() : nullptr;
    at::parallel_for(
        0,
        param.numel(),
        at::internal::GRAIN_SIZE,
        [=](int64_t begin, int64_t end) {
          widest([=] {
            // A copy that no array can overlap, and values instead of
            // references: otherwise the loops are not vectorised.
            const AdamScalars<T> s = scalars;
            const auto element = [&](int64_t i) {
              T param_i = p[i], m_i = m[i], v_i = v[i];
              const T square =
                  adam_element(s, static_cast<T>(g[i]), param_i, m_i, v_i);
              p[i] = param_i;
              m[i] = m_i;
              v[i] = v_i;
              return square;
            };
            if (f) {
              for (int64_t i = begin; i < end; ++i) {
                f[i] += element(i) * s.fisher_weight;
              }
            } else {
              for (int64_t i = begin; i < end; ++i) {
                element(i);
              }
            }
          });
        });
  });
}

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("adam_fisher_step_", &adam_fisher_step_cpu);
}

TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("adam_fisher_step_", &check_adam_fisher_step_);
}

} // namespace
} // namespace merganser::ops
