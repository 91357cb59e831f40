#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/dataset.h"
#include "merganser/train/train_options.h"

namespace merganser {

// Which examples each optimiser step sees, and how many steps there are. A step
// takes `accumulate` consecutive batches of its epoch's order; the last step of
// an epoch may have fewer.
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
  // Examples in all steps together; one counts once per epoch.
  int64_t examples() const {
    return examples_;
  }
  // Epochs begun by the end, the last of which may not be whole.
  int64_t epochs() const;
  // Steps that are done when `epoch` (from 0) ends.
  int64_t epoch_end(int64_t epoch) const;
  // Fishers are collected from here on: one epoch's number of steps.
  int64_t fisher_window_begin() const;

  // The batches of step 0 <= step < steps(), as positions in the data set;
  // valid until the next call.
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
  int64_t epoch_ = -1; // that of order_
  std::vector<std::vector<int64_t>> order_;
};

} // namespace merganser
