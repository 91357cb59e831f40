#include "merganser/objective/refine.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/io/atomic_file.h"
#include "merganser/objective/map_objective.h"
#include "merganser/objective/refine_state.h"
#include "merganser/objective/solver.h"
#include "merganser/train/run_directory.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Solver> make_solver(
    const RefineOptions& options,
    MapObjective& objective) {
  switch (options.solver) {
    case RefineSolver::kAdamW:
      return make_adamw_solver(options, objective);
    case RefineSolver::kNewton:
      return make_newton_solver(options, objective);
    default:
      return make_subspace_solver(options, objective);
  }
}

class Refinement {
 public:
  Refinement(const RefineOptions& options, const ProgressCallback& progress)
      : options_(options),
        progress_(progress),
        directory_(options.out, replaces_out(options)),
        fingerprint_(refine_fingerprint(options)),
        objective_(options),
        best_(objective_.arena().parameters.clone()),
        solver_(make_solver(options, objective_)) {}

  RefineResult run() {
    bool completed = true;
    try {
      begin();
      while (take_steps()) {
      }
    } catch (const Interrupted&) {
      if (state_.steps.empty()) {
        throw;
      }
      completed = false;
    }
    RefineResult result = publish(completed);
    if (!completed) {
      throw Interrupted(fmt::format(
          "interrupted; {} has the best step so far; rerun with --resume to "
          "continue",
          options_.out.string()));
    }
    return result;
  }

 private:
  // The output of an interrupted run, which is resumed.
  static bool replaces_out(const RefineOptions& options) {
    return options.resume && fs::exists(options.out / "refine.json") &&
        fs::exists(RunDirectory(options.out, true).state());
  }

  FlatArrays arrays() {
    FlatArrays all = solver_->arrays();
    all.emplace_back("parameters", objective_.arena().parameters);
    all.emplace_back("best", best_);
    return all;
  }

  void begin() {
    if (options_.resume && fs::exists(directory_.state())) {
      directory_.open();
      state_ = load_refine_state(directory_.state(), fingerprint_, arrays());
      solver_->restore(state_.steps.back().setting);
      before_ = state_.seconds;
      return;
    }
    const RefineStep start = evaluate(0, objective_.gradient());
    if (!std::isfinite(start.objective) || !std::isfinite(start.held_out) ||
        !objective_.arena().gradients.isfinite().all().item<bool>()) {
      throw InputError(fmt::format(
          "{}: the objective or its gradient is not finite: the model's "
          "outputs, or the weights of {:g} examples in total, are beyond the "
          "range of {}",
          options_.model.string(),
          objective_.total_weight(),
          options_.objective.bfloat16 ? "bfloat16" : "float32"));
    }
    directory_.open(); // not before: bad input leaves nothing there
    record(start);
  }

  // objective: J at the parameters, if known.
  RefineStep evaluate(int64_t step, std::optional<double> objective) {
    const double weight = objective_.total_weight();
    const MapObjective::Value held_out = objective_.held_out();
    return {
        .step = step,
        .objective = (objective ? *objective : objective_.training()) / weight,
        .held_out = held_out.objective / weight,
        .held_out_loss = held_out.losses / weight};
  }

  // The steps up to the next evaluation; false: no more.
  bool take_steps() {
    const int64_t last = options_.steps_or_default();
    const int64_t first = state_.steps.back().step + 1;
    const int64_t end =
        std::min(last + 1, first + solver_->steps_per_evaluation());
    if (state_.stopped || first > last) {
      return false;
    }
    SolverStep all;
    for (int64_t step = first; step < end && !all.stopped; ++step) {
      const SolverStep found = solver_->step(step);
      all.rejected += found.rejected;
      all.not_finite += found.not_finite;
      all.stopped = found.stopped;
      all.objective = found.objective;
      if (found.diverged) {
        reject(all);
      }
    }
    RefineStep step = evaluate(end - 1, all.objective);
    if (!std::isfinite(step.objective) || !std::isfinite(step.held_out)) {
      reject(all);
    }
    step.rejected = all.rejected;
    step.not_finite = all.not_finite;
    state_.stopped = all.stopped;
    record(step);
    return true;
  }

  void reject(SolverStep& all) {
    objective_.arena().parameters.copy_(best_);
    ++all.rejected;
    ++all.not_finite;
    if (!solver_->reject()) {
      all.stopped = kObjectiveNotFinite;
    }
  }

  void record(RefineStep step) {
    step.setting = solver_->setting();
    state_.steps.push_back(step);
    // False where the new objective is not finite.
    if (step.step == 0 || step.held_out < state_.steps[state_.kept].held_out) {
      state_.kept = state_.steps.size() - 1;
      best_.copy_(objective_.arena().parameters);
    }
    state_.seconds = seconds();
    save_refine_state(directory_.state(), state_, fingerprint_, arrays());
    if (progress_) {
      progress_(
          step.step,
          options_.steps_or_default(),
          fmt::format("held-out objective {:.4f}", step.held_out));
    }
  }

  double seconds() const {
    const std::chrono::duration<double> elapsed =
        std::chrono::steady_clock::now() - start_;
    return before_ + elapsed.count();
  }

  RefineResult result(bool completed) {
    RefineResult result;
    result.options = options_;
    const auto& tasks = objective_.joint().tasks();
    for (size_t t = 0; t < tasks.size(); ++t) {
      result.num_examples.push_back(
          static_cast<int64_t>(tasks[t].num_examples));
      result.num_examples_used.push_back(std::ssize(tasks[t].examples));
      result.num_examples_held_out.push_back(
          std::ssize(objective_.held_out_examples()[t]));
    }
    result.steps = state_.steps;
    result.kept = state_.kept;
    result.completed = completed;
    result.stopped = state_.stopped;
    result.seconds = seconds();
    return result;
  }

  RefineResult publish(bool completed) {
    const at::NoGradGuard no_grad;
    objective_.arena().parameters.copy_(best_);
    RefineResult done = result(completed);
    AtomicDirectory out(options_.out, replaces_out(options_));
    save_encoder(objective_.joint().model(), options_.model, out.path());
    write_file(out.path() / "refine.json", done.to_json() + "\n");
    out.commit();
    if (completed) {
      std::error_code ignored; // the result is complete
      fs::remove_all(directory_.partial(), ignored);
    }
    return done;
  }

  const RefineOptions& options_;
  const ProgressCallback& progress_;
  std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  double before_ = 0; // seconds of the runs that this one resumes
  RunDirectory directory_;
  std::string fingerprint_;
  MapObjective objective_;
  at::Tensor best_;
  std::unique_ptr<Solver> solver_;
  RefineState state_;
};

} // namespace

RefineResult refine(
    const RefineOptions& options,
    const ProgressCallback& progress) {
  check_options(options);
  const at::NoGradGuard no_grad;
  return Refinement(options, progress).run();
}

} // namespace merganser
