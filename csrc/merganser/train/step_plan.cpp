#include "merganser/train/step_plan.h"

#include <algorithm>
#include <cmath>

#include "merganser/text/batching.h"

namespace merganser {
namespace {

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

} // namespace

StepPlan::StepPlan(const Dataset& data, const TrainOptions& options)
    : data_(data),
      batch_size_(options.batch_size),
      accumulate_(options.accumulate),
      seed_(options.seed) {
  steps_per_epoch_ =
      divide_up(divide_up(data.size(), batch_size_), accumulate_);
  steps_ = options.max_steps >= 1
      ? options.max_steps
      : static_cast<int64_t>(
            std::ceil(options.epochs * static_cast<double>(steps_per_epoch_)));
  warmup_steps_ = static_cast<int64_t>(
      options.warmup < 1
          ? std::ceil(options.warmup * static_cast<double>(steps_))
          : options.warmup);

  const int64_t whole_epochs = steps_ / steps_per_epoch_;
  examples_ = whole_epochs * data.size();
  for (int64_t step = whole_epochs * steps_per_epoch_; step < steps_; step++) {
    for (const std::vector<int64_t>& batch : batches(step)) {
      examples_ += static_cast<int64_t>(batch.size());
    }
  }
}

int64_t StepPlan::epochs() const {
  return divide_up(steps_, steps_per_epoch_);
}

int64_t StepPlan::epoch_end(int64_t epoch) const {
  return std::min((epoch + 1) * steps_per_epoch_, steps_);
}

int64_t StepPlan::fisher_window_begin() const {
  return std::max<int64_t>(0, steps_ - steps_per_epoch_);
}

std::span<const std::vector<int64_t>> StepPlan::batches(int64_t step) {
  order(step / steps_per_epoch_);
  const int64_t begin = step % steps_per_epoch_ * accumulate_;
  const int64_t end =
      std::min(begin + accumulate_, static_cast<int64_t>(order_.size()));
  return std::span(order_).subspan(begin, end - begin);
}

void StepPlan::order(int64_t epoch) {
  if (epoch != epoch_) {
    order_ = training_batches(data_, batch_size_, seed_, epoch);
    epoch_ = epoch;
  }
}

} // namespace merganser
