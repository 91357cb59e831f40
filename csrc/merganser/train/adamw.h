#pragma once

#include <optional>

#include "merganser/base/api.h"
#include "merganser/train/arena.h"
#include "merganser/train/train_options.h"

namespace merganser {

// AdamW over an arena, with decoupled weight decay on its first range and none
// on the rest; two calls of ops::adam_fisher_step_ per step. Source: Loshchilov
// & Hutter 2019.
class MERGANSER_API AdamW {
 public:
  AdamW(Arena& arena, const TrainOptions& options);

  // A step adds to a running sum of squared gradients:
  // sum += weight * (gradient before clipping)^2.
  struct SquareSum {
    at::Tensor sum; // (n)
    double weight = 1;
  };

  // `step` counts from 1; the gradients are multiplied by grad_scale first.
  void step(
      int64_t step,
      double learning_rate,
      double grad_scale,
      const std::optional<SquareSum>& squares = {});

  at::Tensor exp_avg; // (n)
  at::Tensor exp_avg_sq; // (n)

 private:
  Arena& arena_;
  double beta1_;
  double beta2_;
  double epsilon_;
  double weight_decay_;
};

} // namespace merganser
