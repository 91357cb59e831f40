// One AdamW step and the running sums of squared gradients, in one pass. The
// formula is in kernels/adam_formula.h.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "merganser/numeric/adam_formula.h"
#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/dispatcher.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

void adam_fisher_step_(
    at::TensorList params,
    at::TensorList grads,
    at::TensorList exp_avgs,
    at::TensorList exp_avg_sqs,
    at::TensorList fishers,
    at::IntArrayRef steps,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double grad_scale,
    double fisher_weight) {
  static const auto op =
      find_op("merganser::adam_fisher_step_", adam_fisher_step_);
  op.call(
      params,
      grads,
      exp_avgs,
      exp_avg_sqs,
      fishers,
      steps,
      lr,
      beta1,
      beta2,
      eps,
      weight_decay,
      grad_scale,
      fisher_weight);
}

void adam_fisher_step_reference_(
    at::TensorList params,
    at::TensorList grads,
    at::TensorList exp_avgs,
    at::TensorList exp_avg_sqs,
    at::TensorList fishers,
    at::IntArrayRef steps,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double grad_scale,
    double fisher_weight) {
  for (size_t i = 0; i < params.size(); ++i) {
    const at::ScalarType type = params[i].scalar_type();
    const double correction1 = 1 - std::pow(beta1, steps[i]);
    const double correction2 = 1 - std::pow(beta2, steps[i]);
    const at::Tensor g = grads[i].to(type).mul(grad_scale);
    const at::Tensor square = g.mul(g);
    exp_avgs[i].mul_(beta1).add_(g.mul(1 - beta1));
    exp_avg_sqs[i].mul_(beta2).add_(square.mul(1 - beta2));
    // By way of float64, because ATen's float32 root (MKL's) is not always
    // rounded correctly.
    const at::Tensor root = exp_avg_sqs[i].to(at::kDouble).sqrt().to(type);
    const at::Tensor denominator = root.div(std::sqrt(correction2)).add_(eps);
    params[i]
        .mul_(1 - lr * weight_decay)
        .sub_(exp_avgs[i].div(denominator).mul_(lr / correction1));
    if (!fishers.empty()) {
      fishers[i].add_(square.mul(fisher_weight));
    }
  }
}

void check_adam_fisher_step_(
    at::TensorList params,
    at::TensorList grads,
    at::TensorList exp_avgs,
    at::TensorList exp_avg_sqs,
    at::TensorList fishers,
    at::IntArrayRef steps,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double grad_scale,
    double fisher_weight) {
  constexpr const char* kOp = "adam_fisher_step_";
  const auto check_length = [&](const char* name, size_t length) {
    TORCH_CHECK(
        length == params.size(),
        kOp,
        ": needs one of ",
        name,
        " per parameter, ",
        params.size(),
        ", got ",
        length);
  };
  check_length("grads", grads.size());
  check_length("exp_avgs", exp_avgs.size());
  check_length("exp_avg_sqs", exp_avg_sqs.size());
  check_length("steps", steps.size());
  if (!fishers.empty()) {
    check_length("fishers", fishers.size());
  }
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor& param = params[i];
    check_accumulator(kOp, "params", param);
    check_device(kOp, "params", param, params[0]);
    check_input(kOp, "grads", grads[i], param);
    check_shape(kOp, "grads", grads[i], param.sizes());
    const auto check_state = [&](const char* name, const at::Tensor& state) {
      check_accumulator(kOp, name, state);
      check_same_dtype(kOp, name, state, "params", param);
      check_device(kOp, name, state, param);
      check_shape(kOp, name, state, param.sizes());
    };
    check_state("exp_avgs", exp_avgs[i]);
    check_state("exp_avg_sqs", exp_avg_sqs[i]);
    if (!fishers.empty()) {
      check_state("fishers", fishers[i]);
    }
    TORCH_CHECK(steps[i] >= 1, kOp, ": steps count from 1, got ", steps[i]);
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
}

namespace {

// n elements of each array; f may be null.
template <typename T, typename In>
void step_elements(
    const In* g,
    T* p,
    T* m,
    T* v,
    T* f,
    int64_t n,
    const AdamScalars<T>& scalars) {
  at::parallel_for(
      0, n, at::internal::GRAIN_SIZE, [=](int64_t begin, int64_t end) {
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
}

void adam_fisher_step_cpu(
    at::TensorList params,
    at::TensorList grads,
    at::TensorList exp_avgs,
    at::TensorList exp_avg_sqs,
    at::TensorList fishers,
    at::IntArrayRef steps,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double grad_scale,
    double fisher_weight) {
  check_adam_fisher_step_(
      params,
      grads,
      exp_avgs,
      exp_avg_sqs,
      fishers,
      steps,
      lr,
      beta1,
      beta2,
      eps,
      weight_decay,
      grad_scale,
      fisher_weight);
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor grad = kernel_input(grads[i], params[i].scalar_type());
    dispatch_types(params[i], grad, [&]<typename T, typename In>() {
      step_elements(
          grad.const_data_ptr<In>(),
          params[i].data_ptr<T>(),
          exp_avgs[i].data_ptr<T>(),
          exp_avg_sqs[i].data_ptr<T>(),
          fishers.empty() ? nullptr : fishers[i].data_ptr<T>(),
          params[i].numel(),
          make_adam_scalars<T>(
              lr,
              beta1,
              beta2,
              eps,
              weight_decay,
              steps[i],
              grad_scale,
              fisher_weight));
    });
  }
}

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("adam_fisher_step_", &adam_fisher_step_cpu);
}

TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("adam_fisher_step_", &check_adam_fisher_step_);
}

} // namespace
} // namespace merganser::ops
