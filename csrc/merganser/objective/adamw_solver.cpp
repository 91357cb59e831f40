#include <algorithm>
#include <cmath>

#include "merganser/objective/solver.h"
#include "merganser/text/batching.h"
#include "merganser/train/adamw.h"
#include "merganser/train/clipping.h"

namespace merganser {
namespace {

// Separates this use of the seed from those of text/batching.h; one stream per
// pass over a task's examples.
constexpr uint64_t kOrderStream = uint64_t{1} << 59;
constexpr double kWarmup = 0.1; // share of the steps
constexpr double kClip = 1.0;
constexpr int64_t kEvaluations = 12; // in a run

TrainOptions adamw_options() {
  TrainOptions options;
  options.weight_decay = 0; // the proximal term takes its place
  return options;
}

class AdamWSolver : public Solver {
 public:
  AdamWSolver(const RefineOptions& options, MapObjective& objective)
      : options_(options),
        objective_(objective),
        adamw_(objective.arena(), adamw_options()),
        learning_rate_(options.learning_rate) {}

  SolverStep step(int64_t number) override {
    const double objective = objective_.gradient(batches(number));
    const double weight = objective_.total_weight();
    const double norm = flat_norm(objective_.arena().gradients) / weight;
    if (!std::isfinite(objective) || !std::isfinite(norm)) {
      return {.diverged = true};
    }
    const double warmup =
        kWarmup * static_cast<double>(options_.steps_or_default());
    const double factor =
        std::min(1.0, static_cast<double>(number) / std::max(1.0, warmup));
    adamw_.step(
        number, factor * learning_rate_, clip_scale(norm, kClip) / weight);
    return {};
  }

  bool reject() override {
    learning_rate_ /= 2;
    return true;
  }
  int64_t steps_per_evaluation() const override {
    return std::max<int64_t>(1, options_.steps_or_default() / kEvaluations);
  }
  double setting() const override {
    return learning_rate_;
  }
  void restore(double setting) override {
    learning_rate_ = setting;
  }
  FlatArrays arrays() override {
    return {{"exp_avg", adamw_.exp_avg}, {"exp_avg_sq", adamw_.exp_avg_sq}};
  }

 private:
  // Examples of every task, equally many.
  std::vector<std::vector<int64_t>> batches(int64_t number) const {
    const auto& tasks = objective_.training_examples();
    const int64_t size =
        std::max<int64_t>(1, options_.objective.batch_size / std::ssize(tasks));
    std::vector<std::vector<int64_t>> batches;
    for (const std::vector<int64_t>& examples : tasks) {
      const int64_t count = std::ssize(examples);
      std::vector<int64_t> batch;
      for (int64_t i = (number - 1) * size; i < number * size; ++i) {
        const auto order = shuffled(
            examples,
            options_.objective.seed,
            kOrderStream + static_cast<uint64_t>(i / count));
        batch.push_back(order[i % count]);
      }
      batches.push_back(std::move(batch));
    }
    return batches;
  }

  const RefineOptions& options_;
  MapObjective& objective_;
  AdamW adamw_;
  double learning_rate_;
};

} // namespace

std::unique_ptr<Solver> make_adamw_solver(
    const RefineOptions& options,
    MapObjective& objective) {
  return std::make_unique<AdamWSolver>(options, objective);
}

} // namespace merganser
