#pragma once

// Arguments, checks and scalars of merge for every device.

#include "merganser/numeric/merge_formula.h"
#include "merganser/ops/ops.h"

namespace merganser::ops {

// Registered form of the kernel `f`: takes the arguments of the schema.
template <at::Tensor (*f)(const TensorMerge&)>
at::Tensor unpack_merge(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    at::ArrayRef<double> rhos,
    double base_scale,
    int64_t method,
    double delta,
    double clamp,
    double floor) {
  return f(
      {base,
       base_fisher,
       models,
       fishers,
       weights,
       scales,
       rhos,
       base_scale,
       method,
       delta,
       clamp,
       floor});
}

void check_merge(const TensorMerge& merge);

// Dtype of the computation: float64 if any tensor is, else float32.
at::ScalarType merge_type(const TensorMerge& merge);

// Scalars of the formula, without the arrays of the models.
template <typename T>
MergeScalars<T> merge_scalars(const TensorMerge& merge) {
  MergeScalars<T> scalars;
  scalars.count = static_cast<int>(merge.models.size());
  scalars.base_scale = static_cast<T>(merge.base_num_examples);
  scalars.delta = static_cast<T>(merge.delta);
  scalars.clamp = static_cast<T>(merge.clamp);
  scalars.floor = static_cast<T>(merge.floor);
  return scalars;
}

} // namespace merganser::ops
