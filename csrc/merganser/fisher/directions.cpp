#include "merganser/fisher/directions.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace merganser {

// Both functions compute in float64: where one class has nearly all
// probability, 1 - p must not lose its digits.

std::vector<at::Tensor> exact_directions(const at::Tensor& logits) {
  const at::NoGradGuard no_grad;
  const at::Tensor p = at::softmax(logits.to(at::kDouble), 1);
  // (B, K): the probability of class k and all later ones.
  const at::Tensor tail = p.flip(1).cumsum(1).flip(1);
  std::vector<at::Tensor> directions;
  for (int64_t k = 0; k + 1 < p.size(1); ++k) {
    const at::Tensor later = tail.select(1, k + 1);
    const at::Tensor scale =
        (p.select(1, k) * later / tail.select(1, k)).sqrt();
    at::Tensor v = at::zeros_like(p);
    v.select(1, k).fill_(1);
    v.narrow(1, k + 1, p.size(1) - k - 1)
        .copy_(-p.narrow(1, k + 1, p.size(1) - k - 1) / later.unsqueeze(1));
    v.mul_(scale.unsqueeze(1));
    // Probabilities that underflow to zero leave 0/0; such a vector is zero.
    v.masked_fill_((later == 0).unsqueeze(1), 0);
    directions.push_back(v.to(logits.scalar_type()));
  }
  return directions;
}

at::Tensor label_direction(const at::Tensor& logits, const at::Tensor& labels) {
  const at::NoGradGuard no_grad;
  at::Tensor v = at::softmax(logits.to(at::kDouble), 1).neg_();
  v.scatter_add_(
      1, labels.unsqueeze(1), at::ones({labels.size(0), 1}, v.options()));
  return v.to(logits.scalar_type());
}

} // namespace merganser
