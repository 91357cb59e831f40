// Definition of the merge op with whole tensors. It does not use the formulas
// of numeric/merge_formula.h, so that each checks the other.

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "merganser/ops/merge.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

at::Tensor merge_reference(const TensorMerge& merge) {
  const at::ScalarType type = merge_type(merge);
  const int64_t n = static_cast<int64_t>(merge.models.size());
  const auto theta = [&](int64_t t) { return merge.models[t].to(type); };
  const auto f = [&](int64_t t) { return merge.fishers[t].to(type); };
  const at::Tensor zero = at::zeros_like(merge.models[0], type);
  const at::Tensor theta0 = merge.base ? merge.base->to(type) : zero;
  const at::Tensor f0 = merge.base_fisher ? merge.base_fisher->to(type) : zero;
  const auto tau = [&](int64_t t) { return theta(t) - theta0; };
  const auto h = [&](int64_t t) { return f(t) * merge.num_examples[t]; };
  at::Tensor sum = zero;
  at::Tensor total = zero;
  at::Tensor result;
  switch (static_cast<MergeFormula>(merge.method)) {
    case MergeFormula::kLinear:
      for (int64_t t = 0; t < n; ++t) {
        sum = sum + theta(t) * merge.weights[t];
      }
      result = sum;
      break;
    case MergeFormula::kTaskArithmetic:
      for (int64_t t = 0; t < n; ++t) {
        sum = sum + tau(t) * merge.weights[t];
      }
      result = theta0 + sum;
      break;
    case MergeFormula::kFisher: {
      at::Tensor plain = at::zeros({}, zero.options());
      for (int64_t t = 0; t < n; ++t) {
        total = total + h(t) * merge.weights[t];
        plain = plain + merge.weights[t];
      }
      for (int64_t t = 0; t < n; ++t) {
        const at::Tensor weight = at::full_like(plain, merge.weights[t]);
        sum = sum +
            at::where(
                total == 0, weight / plain, h(t) * merge.weights[t] / total) *
                theta(t);
      }
      result = sum;
      break;
    }
    case MergeFormula::kEwr: {
      const at::Tensor lowest = at::full_like(zero, merge.floor);
      const auto floored = [&](const at::Tensor& x) {
        return at::where(x < lowest, lowest, x);
      };
      const at::Tensor first = floored(f0);
      total = first;
      for (int64_t t = 0; t < n; ++t) {
        total = total + floored(f(t)) * merge.weights[t];
      }
      result = first / total * theta0;
      for (int64_t t = 0; t < n; ++t) {
        result = result - floored(f(t)) * merge.weights[t] / total * tau(t);
      }
      break;
    }
    case MergeFormula::kFisherBase:
    case MergeFormula::kGradientMatching:
    case MergeFormula::kRemoval: {
      const bool removal =
          merge.method == static_cast<int>(MergeFormula::kRemoval);
      const auto rho = [&](int64_t t) {
        const bool fisher_base =
            merge.method == static_cast<int>(MergeFormula::kFisherBase);
        return !merge.rhos.empty() ? merge.rhos[t] : fisher_base ? 0.0 : 1.0;
      };
      const at::Tensor h0 = f0 * merge.base_num_examples + merge.delta;
      for (int64_t t = 0; t < n; ++t) {
        total = total + h(t) * merge.weights[t];
      }
      at::Tensor denominator = removal ? h0 - total : h0 + total;
      if (removal) {
        const at::Tensor lowest = (h0 + total) * merge.clamp;
        denominator = at::where(denominator < lowest, zero, denominator);
      }
      for (int64_t t = 0; t < n; ++t) {
        const at::Tensor a = h0 * rho(t) + h(t);
        const at::Tensor none = at::full_like(zero, rho(t) * merge.weights[t]);
        sum = sum +
            at::where(
                denominator == 0, none, a * merge.weights[t] / denominator) *
                tau(t);
      }
      result = removal ? theta0 - sum : theta0 + sum;
      break;
    }
    case MergeFormula::kTaskSum:
    case MergeFormula::kSignElection:
      TORCH_CHECK(false, "merge: the op has no formulas of task vectors");
  }
  return result.to(merge.models[0].scalar_type());
}

} // namespace merganser::ops
