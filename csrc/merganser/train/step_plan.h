#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/dataset.h"
#include "merganser/train/train_options.h"

namespace merganser {

// Assigns examples to optimiser steps. A step takes `accumulate` consecutive
// batches of its epoch's order; the last step of an epoch may have fewer.
class MERGANSER_API StepPlan {
 public:
  StepPlan(const Dataset& data, const TrainOptions& options);

  int64_t steps() const {
    return steps_;
  }
  int64_t steps_per_epoch() const {
    return steps_per_epoch_;
  }
  int64_t warmup_steps() const {
    return warmup_steps_;
  }
  // Number of examples in all steps; each counts once per epoch.
  int64_t examples() const {
    return examples_;
  }
  // Number of epochs, including a partial last one.
  int64_t epochs() const;
  // Number of steps completed at the end of `epoch` (from 0).
  int64_t epoch_end(int64_t epoch) const;
  // First step of the window in which Fishers are collected: the last
  // steps_per_epoch() steps.
  int64_t fisher_window_begin() const;

  // The batches of a step, 0 <= step < steps(), as positions in the data set.
  // Valid until the next call.
  std::span<const std::vector<int64_t>> batches(int64_t step);

 private:
  void order(int64_t epoch);

  const Dataset& data_;
  int64_t batch_size_;
  int64_t accumulate_;
  uint64_t seed_;
  int64_t steps_per_epoch_;
  int64_t steps_;
  int64_t warmup_steps_;
  int64_t examples_;
  int64_t epoch_ = -1; // epoch of order_
  std::vector<std::vector<int64_t>> order_;
};

} // namespace merganser
