#pragma once

#include <optional>

#include "merganser/base/api.h"
#include "merganser/base/error.h"
#include "merganser/text/batching.h"
#include "merganser/train/adamw.h"
#include "merganser/train/arena.h"
#include "merganser/train/metrics.h"
#include "merganser/train/online_fisher.h"
#include "merganser/train/proximal.h"
#include "merganser/train/step_plan.h"
#include "merganser/train/tangent_space.h"
#include "merganser/train/task.h"

namespace merganser {

// Thrown when the loss, a gradient or a parameter is not finite.
class MERGANSER_API Diverged : public Error {
 public:
  using Error::Error;
};

// Runs optimiser steps: forward and backward passes over its batches,
// proximal term, clipping, the fused AdamW + Fisher pass.
class MERGANSER_API Stepper {
 public:
  Stepper(const TrainOptions& options, TrainingTask& task);

  // Runs a step, 0 <= step < plan.steps(). Throws Diverged, without changing
  // the parameters, when the loss or a gradient is not finite.
  StepMetrics step(StepPlan& plan, int64_t step);

  Arena arena;
  AdamW adamw;
  std::optional<OnlineFisher> fisher;
  std::optional<TangentSpace> tangent_space; // with options.linearized

 private:
  struct Forward {
    Batch batch;
    at::Tensor logits; // (B, K)
  };
  Forward forward(const std::vector<int64_t>& batch);
  // Adds scale * (gradient of the sum over the batch) and returns the sum.
  double add_loss(const Forward& pass, double scale);
  // Add squares at labels drawn from the model to the Fisher: by a forward pass
  // in eval mode, or by one more backward pass of the step's own graph.
  void sample_in_eval_mode(const std::vector<int64_t>& batch, int64_t epoch);
  void sample_on_graph(const Forward& pass, int64_t epoch, bool first_of_step);
  void add_sampled(const Forward& pass, int64_t epoch, bool keep_graph);

  const TrainOptions& options_;
  TrainingTask& task_;
  std::optional<Proximal> proximal_;
};

} // namespace merganser
