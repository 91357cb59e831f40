#pragma once

// Arguments, checks and scalars of adam_fisher_step_ for every device.

#include "merganser/numeric/adam_formula.h"
#include "merganser/ops/ops.h"

namespace merganser::ops {

// Registered form of the kernel `f`: takes the arguments of the schema.
template <void (*f)(const AdamFisherStep&)>
void unpack_adam_fisher_step_(
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
  f({params,
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
     fisher_weight});
}

void check_adam_fisher_step_(const AdamFisherStep& step);

// Scalars of the i-th parameter.
template <typename T>
AdamScalars<T> adam_scalars(const AdamFisherStep& step, size_t i) {
  return make_adam_scalars<T>(
      step.lr,
      step.beta1,
      step.beta2,
      step.eps,
      step.weight_decay,
      step.steps[i],
      step.grad_scale,
      step.fisher_weight);
}

} // namespace merganser::ops
