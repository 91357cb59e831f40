// One AdamW step and the running sums of squared gradients, in one pass. The
// formula is in numeric/adam_formula.h.

#include "merganser/ops/adam_fisher_step.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

void adam_fisher_step_reference_(const AdamFisherStep& step) {
  for (size_t i = 0; i < step.params.size(); ++i) {
    const at::Tensor& param = step.params[i];
    const at::Tensor& exp_avg = step.exp_avgs[i];
    const at::Tensor& exp_avg_sq = step.exp_avg_sqs[i];
    const at::ScalarType type = param.scalar_type();
    const double correction1 = 1 - std::pow(step.beta1, step.steps[i]);
    const double correction2 = 1 - std::pow(step.beta2, step.steps[i]);
    const at::Tensor g = step.grads[i].to(type).mul(step.grad_scale);
    const at::Tensor square = g.mul(g);
    exp_avg.mul_(step.beta1).add_(g.mul(1 - step.beta1));
    exp_avg_sq.mul_(step.beta2).add_(square.mul(1 - step.beta2));
    // ATen's float32 root (MKL's) is not always rounded correctly; float64's,
    // rounded to float32, is.
    const at::Tensor root = exp_avg_sq.to(at::kDouble).sqrt().to(type);
    const at::Tensor denominator =
        root.div(std::sqrt(correction2)).add_(step.eps);
    param.mul_(1 - step.lr * step.weight_decay)
        .sub_(exp_avg.div(denominator).mul_(step.lr / correction1));
    if (!step.fishers.empty()) {
      step.fishers[i].add_(square.mul(step.fisher_weight));
    }
  }
}

namespace {

constexpr const char* kOp = "adam_fisher_step_";

void check_lengths(const AdamFisherStep& step) {
  const size_t expected = step.params.size();
  const auto check_length = [&](const char* name, size_t length) {
    TORCH_CHECK(
        length == expected,
        kOp,
        ": expected one of ",
        name,
        " per parameter (",
        expected,
        "), got ",
        length);
  };
  check_length("grads", step.grads.size());
  check_length("exp_avgs", step.exp_avgs.size());
  check_length("exp_avg_sqs", step.exp_avg_sqs.size());
  check_length("steps", step.steps.size());
  if (!step.fishers.empty()) {
    check_length("fishers", step.fishers.size());
  }
}

void check_parameter(const AdamFisherStep& step, size_t i) {
  const at::Tensor& param = step.params[i];
  check_accumulator(kOp, "params", param);
  check_device(kOp, "params", param, step.params[0]);
  check_input(kOp, "grads", step.grads[i], param);
  check_shape(kOp, "grads", step.grads[i], param.sizes());
  const auto check_state = [&](const char* name, const at::Tensor& state) {
    check_accumulator(kOp, name, state);
    check_same_dtype(kOp, name, state, "params", param);
    check_device(kOp, name, state, param);
    check_shape(kOp, name, state, param.sizes());
  };
  check_state("exp_avgs", step.exp_avgs[i]);
  check_state("exp_avg_sqs", step.exp_avg_sqs[i]);
  if (!step.fishers.empty()) {
    check_state("fishers", step.fishers[i]);
  }
  TORCH_CHECK(
      step.steps[i] >= 1, kOp, ": steps count from 1, got ", step.steps[i]);
}

void check_range(const char* name, double value, bool good) {
  TORCH_CHECK(good, kOp, ": ", name, " is out of range: ", value);
}

} // namespace

void check_adam_fisher_step_(const AdamFisherStep& step) {
  check_lengths(step);
  for (size_t i = 0; i < step.params.size(); ++i) {
    check_parameter(step, i);
  }
  check_range("lr", step.lr, step.lr >= 0 && std::isfinite(step.lr));
  check_range("beta1", step.beta1, step.beta1 >= 0 && step.beta1 < 1);
  check_range("beta2", step.beta2, step.beta2 >= 0 && step.beta2 < 1);
  check_range("eps", step.eps, step.eps >= 0 && std::isfinite(step.eps));
  check_range(
      "weight_decay", step.weight_decay, std::isfinite(step.weight_decay));
  check_range("grad_scale", step.grad_scale, std::isfinite(step.grad_scale));
  check_range(
      "fisher_weight", step.fisher_weight, std::isfinite(step.fisher_weight));
}

namespace {

// Updates n elements of each array; f may be null.
template <typename T, typename In>
void step_elements(
    const In* g,
    T* p,
    T* m,
    T* v,
    T* f,
    int64_t n,
    const AdamScalars<T>& scalars) {
  at::parallel_for(0, n, kGrain, [=](int64_t begin, int64_t end) {
    widest([=] {
      // A copy that no array overlaps, and values instead of
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

} // namespace

void adam_fisher_step_cpu(const AdamFisherStep& step) {
  check_adam_fisher_step_(step);
  for (size_t i = 0; i < step.params.size(); ++i) {
    const at::Tensor& param = step.params[i];
    const at::Tensor grad = kernel_input(step.grads[i], param.scalar_type());
    dispatch_types(param, grad, [&]<typename T, typename In>() {
      step_elements(
          grad.const_data_ptr<In>(),
          param.data_ptr<T>(),
          step.exp_avgs[i].data_ptr<T>(),
          step.exp_avg_sqs[i].data_ptr<T>(),
          step.fishers.empty() ? nullptr : step.fishers[i].data_ptr<T>(),
          param.numel(),
          adam_scalars<T>(step, i));
    });
  }
}

} // namespace merganser::ops
