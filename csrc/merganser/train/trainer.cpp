#include "merganser/train/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/eval/evaluate.h"
#include "merganser/train/clipping.h"
#include "merganser/train/fingerprint.h"
#include "merganser/train/metrics.h"
#include "merganser/train/run_directory.h"
#include "merganser/train/step_plan.h"
#include "merganser/train/stepper.h"
#include "merganser/train/task.h"
#include "merganser/train/train_state.h"

namespace merganser {
namespace {

// -1 without files to evaluate on: no epoch is better than another.
double mean_accuracy(const EpochMetrics& metrics) {
  double sum = 0;
  for (const EpochEval& eval : metrics.eval) {
    sum += eval.accuracy;
  }
  return metrics.eval.empty() ? -1
                              : sum / static_cast<double>(metrics.eval.size());
}

class Trainer {
 public:
  Trainer(const TrainOptions& options, const ProgressCallback& progress)
      : options_(options),
        progress_(progress),
        directory_(options.out),
        task_(load_task(options)),
        fingerprint_(fingerprint(options, task_.model_hash)),
        plan_(task_.train, options),
        stepper_(options, task_) {}

  TrainResult run();

 private:
  TrainResult train_to_the_end();
  void resume();
  bool epoch_over() const;
  void step();
  void end_epoch();
  void evaluate_on_all(EpochMetrics& metrics);
  void report(const StepMetrics& last) const;
  void checkpoint();
  TrainResult finish();

  // Runs `work`; when an exception ends it (Ctrl-C, a progress callback), saves
  // a checkpoint of the completed steps first.
  template <typename Work>
  void stoppable(const Work& work);

  FlatArrays arrays() const;

  const TrainOptions& options_;
  const ProgressCallback& progress_;
  RunDirectory directory_;
  TrainingTask task_;
  std::string fingerprint_;
  StepPlan plan_;
  Stepper stepper_;
  TrainState state_;
  std::optional<MetricsFile> metrics_;
};

TrainResult Trainer::run() {
  try {
    return train_to_the_end();
  } catch (const Diverged& diverged) {
    throw Error(fmt::format(
        "{}; remove {} to start again with other options",
        diverged.what(),
        directory_.partial().string()));
  }
}

TrainResult Trainer::train_to_the_end() {
  resume();
  while (state_.step < plan_.steps() || epoch_over()) {
    if (epoch_over()) {
      end_epoch();
      if (options_.checkpoint_steps == 0 && state_.step < plan_.steps()) {
        checkpoint();
      }
    } else {
      step();
      if (options_.checkpoint_steps > 0 &&
          state_.step % options_.checkpoint_steps == 0) {
        checkpoint();
      }
    }
  }
  return finish();
}

void Trainer::resume() {
  directory_.open();
  if (std::filesystem::exists(directory_.state())) {
    state_ = load_state(directory_.state(), fingerprint_, arrays());
    if (stepper_.fisher) {
      stepper_.fisher->examples = state_.fisher_examples;
    }
  }
  metrics_.emplace(directory_.metrics(), state_.metrics_bytes);
}

bool Trainer::epoch_over() const {
  const auto epoch = static_cast<int64_t>(state_.epochs.size());
  return epoch < plan_.epochs() && state_.step == plan_.epoch_end(epoch);
}

void Trainer::step() {
  const StepMetrics metrics = stepper_.step(plan_, state_.step);
  metrics_->write(metrics);
  state_.step++;
  state_.examples += metrics.examples;
  state_.epoch_examples += metrics.examples;
  state_.epoch_loss += metrics.loss * static_cast<double>(metrics.examples);
  stoppable([&] {
    check_interrupt();
    report(metrics);
  });
}

void Trainer::end_epoch() {
  EpochMetrics metrics;
  metrics.epoch = static_cast<int64_t>(state_.epochs.size()) + 1;
  metrics.step = state_.step;
  metrics.linearized = options_.linearized;
  metrics.train_loss =
      state_.epoch_loss / static_cast<double>(state_.epoch_examples);
  if (!std::isfinite(flat_norm(stepper_.arena.parameters))) {
    throw Diverged(fmt::format(
        "the parameters are not finite after step {}: training diverged; a "
        "lower learning rate may help",
        state_.step));
  }
  stoppable([&] { evaluate_on_all(metrics); });
  metrics_->write(metrics);
  const double accuracy = mean_accuracy(metrics);
  if (accuracy > state_.best_accuracy) {
    state_.best_accuracy = accuracy;
    state_.best_epoch = metrics.epoch;
    save_arrays(directory_.best(), {{"parameters", stepper_.arena.parameters}});
  }
  state_.epochs.push_back(std::move(metrics));
  state_.epoch_loss = 0;
  state_.epoch_examples = 0;
}

void Trainer::evaluate_on_all(EpochMetrics& metrics) {
  if (stepper_.tangent_space) {
    stepper_.tangent_space->update();
  }
  for (size_t i = 0; i < task_.eval.size(); i++) {
    const EvalResult result = evaluate(
        task_.model,
        task_.eval[i],
        task_.pad_id,
        options_.batch_size,
        options_.bfloat16);
    metrics.eval.push_back(
        {options_.eval[i].string(), result.accuracy, result.loss});
  }
}

void Trainer::report(const StepMetrics& last) const {
  if (progress_) {
    progress_(
        state_.examples,
        plan_.examples(),
        fmt::format(
            "epoch {}/{}, loss {:.4f}, lr {:.2e}",
            last.epoch,
            plan_.epochs(),
            state_.epoch_loss / static_cast<double>(state_.epoch_examples),
            last.learning_rate));
  }
}

template <typename Work>
void Trainer::stoppable(const Work& work) {
  try {
    work();
  } catch (const Interrupted&) {
    checkpoint();
    throw Interrupted(fmt::format(
        "interrupted after step {} of {}; rerun the same command to resume",
        state_.step,
        plan_.steps()));
  } catch (...) {
    checkpoint();
    throw;
  }
}

void Trainer::checkpoint() {
  state_.metrics_bytes = metrics_->sync();
  if (stepper_.fisher) {
    state_.fisher_examples = stepper_.fisher->examples;
  }
  save_state(directory_.state(), state_, fingerprint_, arrays());
}

FlatArrays Trainer::arrays() const {
  FlatArrays arrays = {
      {"parameters", stepper_.arena.parameters},
      {"exp_avg", stepper_.adamw.exp_avg},
      {"exp_avg_sq", stepper_.adamw.exp_avg_sq}};
  if (stepper_.fisher) {
    arrays.emplace_back("fisher", stepper_.fisher->sum);
  }
  return arrays;
}

TrainResult Trainer::finish() {
  checkpoint(); // the rest can be interrupted, or fail on a full disk
  TrainResult result;
  result.out = options_.out;
  result.steps = state_.step;
  result.examples = state_.examples;
  result.epochs = state_.epochs;
  result.new_parameters = task_.new_parameters;
  result.model_epoch = plan_.epochs();
  std::optional<FisherResult> fisher;
  if (stepper_.fisher) {
    fisher = stepper_.fisher->result(stepper_.arena);
    fisher->estimator = training_fisher_name(options_.fisher);
    fisher->num_examples = task_.train.size();
    fisher->seed = options_.seed;
    fisher->labels =
        options_.fisher == TrainingFisher::kAdam ? "data" : "model";
    fisher->storage = options_.fisher_storage;
  } else if (state_.best_epoch != 0 && state_.best_epoch != plan_.epochs()) {
    result.model_epoch = state_.best_epoch;
    load_arrays(
        SafetensorsFile(directory_.best()),
        {{"parameters", stepper_.arena.parameters}});
  }
  if (stepper_.tangent_space) {
    stepper_.tangent_space->leave();
  }
  result.fisher = directory_.publish(task_.model, options_.model, fisher);
  return result;
}

} // namespace

TrainResult train(
    const TrainOptions& options,
    const ProgressCallback& progress) {
  const auto start = std::chrono::steady_clock::now();
  TrainResult result = Trainer(options, progress).run();
  result.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return result;
}

} // namespace merganser
