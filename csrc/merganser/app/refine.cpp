// merganser refine --base DIR --expert DIR --data F ... --model DIR --out DIR

#include "merganser/objective/refine.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/model_option.h"
#include "merganser/app/objective_arguments.h"
#include "merganser/base/error.h"
#include "merganser/base/progress.h"

namespace merganser::app {
namespace {

struct Options {
  ObjectiveArguments objective;
  RefineOptions refine;
};

// Refuses an option that another solver would ignore.
void check_applies(
    const CLI::Option& option,
    RefineSolver solver,
    RefineSolver chosen) {
  if (option.count() > 0 && chosen != solver) {
    throw InputError(fmt::format(
        "{} applies to {}, not to {}",
        option.get_name(),
        refine_solver_name(solver),
        refine_solver_name(chosen)));
  }
}

void add_choices(CLI::App& parser, RefineOptions& o) {
  parser
      .add_option_function<std::string>(
          "--solver",
          [&o](const std::string& name) {
            o.solver = parse_refine_solver(name);
          },
          "Solver: adamw, newton or subspace")
      ->default_str(refine_solver_name(o.solver));
  parser
      .add_option_function<std::string>(
          "--targets",
          [&o](const std::string& name) {
            o.targets = parse_refine_targets(name);
          },
          "Targets: labels of the data, or predictions of the experts")
      ->default_str(refine_targets_name(o.targets));
  parser
      .add_option_function<std::string>(
          "--groups",
          [&o](const std::string& name) { o.groups = parse_grouping(name); },
          "subspace: groups of the task vectors, global, block or tensor")
      ->default_str(grouping_name(o.groups));
}

void refine(const Options& options, const CommonOptions& common) {
  RefineOptions complete = options.refine;
  complete.objective = options.objective.objective();
  RefineResult result;
  {
    ProgressBar bar("refine", "steps", common.quiet);
    result = merganser::refine(complete, bar.callback());
  }
  if (common.json) {
    fmt::print("{}\n", result.to_json());
  } else if (!common.quiet) {
    fmt::print("{}", result.to_text());
  }
}

} // namespace

Work define_refine(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  add_objective_arguments(parser, options->objective);
  RefineOptions& o = options->refine;
  add_model(parser, "--model", o.model, "Model directory to start from")
      ->required();
  parser.add_option("--out", o.out, "Output directory")->required();
  add_choices(parser, o);
  parser.add_option(
      "--steps",
      o.steps,
      "Number of steps; by default 60 (adamw), 10 (newton), 4 (subspace)");
  parser.add_option("--lr", o.learning_rate, "adamw: learning rate")
      ->capture_default_str();
  parser
      .add_option(
          "--held-out",
          o.held_out,
          "Share of the examples that selects the best step")
      ->capture_default_str();
  parser.add_flag(
      "--refresh",
      o.refresh,
      "newton: estimate the experts' Fishers at every step");
  parser.add_flag("--resume", o.resume, "Resume an interrupted run");
  const CLI::Option* lr = parser.get_option("--lr");
  const CLI::Option* groups = parser.get_option("--groups");
  return [options, lr, groups, &common] {
    check_applies(*lr, RefineSolver::kAdamW, options->refine.solver);
    check_applies(*groups, RefineSolver::kSubspace, options->refine.solver);
    refine(*options, common);
  };
}

} // namespace merganser::app
