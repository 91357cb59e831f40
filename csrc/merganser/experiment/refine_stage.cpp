#include "merganser/base/json_text.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/objective/refine.h"

namespace merganser {

namespace {

// The objective on the data of base and experts.
ObjectiveOptions with_base_data(const Workplace& work) {
  ObjectiveOptions options = joint_objective(work);
  options.tasks.push_back(
      {.expert = options.base,
       .data = work.data[work.experiment.base.data[0]].train,
       .fisher = options.base_fisher});
  options.base_fisher.reset();
  return options;
}

} // namespace

std::string refine_model(
    Workplace& work,
    const ExperimentRefinement& refinement) {
  namespace fs = std::filesystem;
  RefineOptions options = refinement.options;
  const ObjectiveOptions chosen = options.objective;
  options.objective =
      refinement.base_data ? with_base_data(work) : joint_objective(work);
  options.objective.limit = chosen.limit;
  options.objective.batch_size = chosen.batch_size;
  options.model = work.in(refinement.from);
  options.out = work.in(layout::refinement(refinement.name));
  options.resume = true;
  const fs::path report = options.out / "refine.json";
  Json inputs = objective_inputs(work, options.objective);
  inputs.update(
      {{"model", work.runner.hash(options.model)},
       {"solver", refine_solver_name(options.solver)},
       {"targets", refine_targets_name(options.targets)},
       {"groups", grouping_name(options.groups)},
       {"steps", options.steps_or_default()},
       {"lr", options.learning_rate},
       {"held_out", options.held_out},
       {"refresh", options.refresh}});
  work.runner.run(
      {.name = "refine " + refinement.name,
       .unit = "steps",
       .inputs = inputs,
       .outputs = {options.out, report},
       .work = [&](const ProgressCallback& progress) {
         refine(options, progress);
       }});
  return read_file(report);
}

} // namespace merganser
