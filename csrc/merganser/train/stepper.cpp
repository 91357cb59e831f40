#include "merganser/train/stepper.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/model/batch_logits.h"
#include "merganser/model/eval_mode.h"
#include "merganser/numeric/philox.h"
#include "merganser/ops/ops.h"
#include "merganser/text/batching.h"
#include "merganser/train/clipping.h"

namespace merganser {
namespace {

// Separates the masks from the shuffles and sampled labels of the same seed.
constexpr uint64_t kDropoutStream = 0x64726f706f7574; // "dropout"

int64_t count_examples(std::span<const std::vector<int64_t>> batches) {
  size_t count = 0;
  for (const std::vector<int64_t>& batch : batches) {
    count += batch.size();
  }
  return static_cast<int64_t>(count);
}

at::Tensor to_tensor(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
}

void check_finite(const char* what, double value, const StepMetrics& metrics) {
  if (!std::isfinite(value)) {
    throw Diverged(fmt::format(
        "the {} is {} at step {} (learning rate {:.3g}): training diverged; "
        "a lower learning rate, a longer warm-up or float32 may help",
        what,
        value,
        metrics.step,
        metrics.learning_rate));
  }
}

} // namespace

Stepper::Stepper(const TrainOptions& options, TrainingTask& task)
    : arena(task.model->named_parameters()),
      adamw(arena, options),
      options_(options),
      task_(task) {
  task.model->train();
  if (options.fisher != TrainingFisher::kNone) {
    fisher.emplace(arena);
  }
  if (!options.proximal.empty()) {
    proximal_.emplace(
        arena,
        options.proximal,
        task.model_hash,
        options.proximal_weight,
        task.train.size());
  }
  if (options.linearized) {
    tangent_space.emplace(arena, task.model);
  }
}

StepMetrics Stepper::step(StepPlan& plan, int64_t step) {
  const auto batches = plan.batches(step);
  StepMetrics metrics;
  metrics.epoch = step / plan.steps_per_epoch() + 1;
  metrics.step = step + 1;
  metrics.examples = count_examples(batches);
  metrics.learning_rate =
      options_.learning_rate *
      schedule_factor(
          options_.schedule, step, plan.warmup_steps(), plan.steps());

  const bool in_window = fisher && step >= plan.fisher_window_begin();
  const bool samples = in_window && options_.fisher != TrainingFisher::kAdam &&
      (step - plan.fisher_window_begin()) % options_.fisher_interval == 0;
  if (samples && options_.fisher == TrainingFisher::kOnlineMcEval) {
    for (const std::vector<int64_t>& batch : batches) {
      sample_in_eval_mode(batch, metrics.epoch);
    }
  }
  // A step's masks depend on nothing before it, so a resumed run has the same
  // ones.
  task_.model->seed_dropout(
      philox_u64(options_.seed, kDropoutStream, static_cast<uint64_t>(step)));
  if (tangent_space) {
    tangent_space->update();
  }
  const double scale = 1.0 / static_cast<double>(metrics.examples);
  for (const std::vector<int64_t>& batch : batches) {
    const Forward pass = forward(batch);
    if (samples && options_.fisher == TrainingFisher::kOnlineMc) {
      sample_on_graph(pass, metrics.epoch, &batch == &batches.front());
    }
    metrics.loss += scale * add_loss(pass, scale);
  }
  check_finite("loss", metrics.loss, metrics);

  std::optional<AdamW::SquareSum> squares;
  if (in_window && options_.fisher == TrainingFisher::kAdam) {
    squares = fisher->next_step(metrics.examples);
  }
  if (proximal_) {
    if (squares) {
      // The Fisher belongs to the data's loss alone, so its squares cannot wait
      // for the fused pass.
      ops::square_accumulate_(squares->sum, arena.gradients, squares->weight);
      squares.reset();
    }
    metrics.penalty = proximal_->add_gradient(arena);
  }
  metrics.gradient_norm = flat_norm(arena.gradients);
  check_finite("norm of the gradient", metrics.gradient_norm, metrics);
  adamw.step(
      metrics.step,
      metrics.learning_rate,
      clip_scale(metrics.gradient_norm, options_.clip),
      squares);
  arena.gradients.zero_();
  return metrics;
}

Stepper::Forward Stepper::forward(const std::vector<int64_t>& indices) {
  Batch batch = make_batch(task_.train, indices, task_.pad_id);
  const at::Tensor logits = batch_logits(task_.model, batch, options_.bfloat16);
  return {std::move(batch), logits};
}

double Stepper::add_loss(const Forward& pass, double scale) {
  const at::Tensor loss = at::cross_entropy_loss(
      pass.logits, to_tensor(pass.batch.labels), {}, at::Reduction::Sum);
  (loss * scale).backward();
  return loss.item<double>();
}

void Stepper::sample_in_eval_mode(
    const std::vector<int64_t>& indices,
    int64_t epoch) {
  const EvalMode eval_mode(*task_.model);
  add_sampled(forward(indices), epoch, false);
}

void Stepper::sample_on_graph(
    const Forward& pass,
    int64_t epoch,
    bool first_of_step) {
  if (first_of_step) {
    add_sampled(pass, epoch, true);
    return;
  }
  // The gradients of the step's earlier batches must not enter the squares.
  const at::Tensor earlier = arena.gradients.clone();
  arena.gradients.zero_();
  add_sampled(pass, epoch, true);
  arena.gradients.copy_(earlier);
}

void Stepper::add_sampled(const Forward& pass, int64_t epoch, bool keep_graph) {
  fisher->add_sampled(
      arena,
      pass.logits,
      to_tensor(pass.batch.indices),
      options_.seed,
      epoch,
      keep_graph);
}

} // namespace merganser
