#include "merganser/experiment/experiment.h"

#include <algorithm>
#include <optional>

#include "merganser/base/json_text.h"
#include "merganser/experiment/comparison_stage.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/merge_cost.h"
#include "merganser/experiment/seeds.h"
#include "merganser/experiment/stage_runner.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

void create_models(Workplace& work) {
  const Experiment& e = work.experiment;
  const Start encoder{e.encoder, {}};
  train_model(work, layout::kBase, encoder, e.base, e.base.data);
  // Runs before the experts, whose training may have a proximal term.
  estimate_model_fisher(
      work, layout::kBase, layout::model(layout::kBase), e.base.data);
  const Start base = start_from_base(work);
  for (const size_t data : e.experts.data) {
    const std::string& name = e.data[data].name;
    train_model(work, name, base, e.experts, {data});
    estimate_expert_fisher(work, data);
  }
  if (e.target) {
    train_model(work, layout::kTarget, base, *e.target, e.target->data);
  }
  for (const auto& [name, training] : e.targets) {
    train_model(work, name, base, training, training.data);
  }
}

// Collects the Gram matrices of base and experts that a merge uses from files.
void collect_grams(Workplace& work) {
  const Experiment& e = work.experiment;
  const auto needs = [&](bool (MethodInfo::*any)() const) {
    return std::ranges::any_of(e.merges, [&](const ExperimentMerge& merge) {
      return (merge.recipe.method->*any)() &&
          !merge.recipe.grams_of_task_vectors();
    });
  };
  if (needs(&MethodInfo::needs_base_gram)) {
    estimate_model_gram(
        work, layout::kBase, layout::model(layout::kBase), e.base.data);
  }
  if (needs(&MethodInfo::needs_grams)) {
    for (const size_t data : e.experts.data) {
      const std::string& name = e.data[data].name;
      estimate_model_gram(work, name, layout::model(name), {data});
    }
  }
}

std::vector<SweepResults> merge_all(Workplace& work) {
  std::vector<SweepResults> sweeps;
  const auto merge_those = [&](bool in_subspace) {
    for (const ExperimentMerge& merge : work.experiment.merges) {
      if (merge.recipe.uses_subspace() != in_subspace) {
        continue;
      }
      if (merge.sweep) {
        sweeps.push_back(run_sweep(work, merge));
      }
      const size_t chosen = merge.sweep ? sweeps.back().chosen : 0;
      merge_experts(work, merge.name, sweep_output(merge.recipe, chosen));
    }
  };
  merge_those(/*in_subspace=*/false);
  estimate_subspace(work); // some of these merges may be its directions
  merge_those(/*in_subspace=*/true);
  return sweeps;
}

std::vector<ModelResult> evaluate_models(Workplace& work) {
  const Experiment& e = work.experiment;
  std::vector<ModelResult> results;
  const auto add = [&](const std::string& name, const char* kind) {
    results.push_back(evaluate_model(work, name, kind, e.model_path(name)));
  };
  add(layout::kBase, "base");
  for (const size_t data : e.experts.data) {
    add(e.data[data].name, "expert");
  }
  if (e.target) {
    add(layout::kTarget, "target");
  }
  for (const ExperimentTarget& target : e.targets) {
    add(target.name, "target");
  }
  for (const ExperimentMerge& merge : e.merges) {
    add(merge.name, "merge");
    results.back().method = merge.recipe.method->name;
    results.back().experts = merge.experts;
    results.back().cost = cost_of(work, merge);
  }
  for (const ExperimentRefinement& refinement : e.refinements) {
    add(refinement.name, "refined");
  }
  return results;
}

// The gap from the sum of all task vectors to joint training, if the table has
// both.
std::optional<Gap> find_gap(const Experiment& e) {
  const auto merge = std::ranges::find_if(e.merges, [&](const auto& merge) {
    return merge.experts.size() == e.experts.data.size() &&
        is_sum_of_task_vectors(merge.recipe);
  });
  if (!e.target || merge == e.merges.end()) {
    return std::nullopt;
  }
  return Gap{merge->name, layout::kTarget};
}

void measure_mismatches(Workplace& work, std::vector<ModelResult>& models) {
  MismatchStages stages(work);
  for (ModelResult& model : models) {
    model.mismatch = stages.measure(model);
  }
}

} // namespace

std::string run_experiment(
    const Experiment& experiment,
    const std::filesystem::path& out,
    const ExperimentEvents& events) {
  if (!experiment.seeds.empty()) {
    return run_seeds(experiment, out, events);
  }
  StageRunner runner(out, events);
  Workplace work{experiment, runner, out};
  // Never leaves old results next to new models.
  std::filesystem::remove(work.in(layout::kResults));
  ExperimentResults results;
  for (const ExperimentData& data : experiment.data) {
    results.sets.push_back(data.name);
    work.data.push_back(sample_data(work, data));
  }
  results.base_data = experiment.data[experiment.base.data.front()].name;
  results.majority = check_data(work);
  create_models(work);
  collect_grams(work);
  calibrate_fishers(work);
  results.sweeps = merge_all(work);
  for (const ExperimentRefinement& refinement : experiment.refinements) {
    results.refinements.push_back(
        {refinement.name, refine_model(work, refinement)});
  }
  results.models = evaluate_models(work);
  results.gap = find_gap(experiment);
  if (experiment.mismatch) {
    measure_mismatches(work, results.models);
  }
  ComparisonTask comparison{
      .folder = out,
      .experiments = {out},
      .models = {},
      .sets = results.sets,
      .seed = experiment.seed};
  for (const ModelResult& model : results.models) {
    comparison.models.push_back(model.name);
  }
  results.comparisons = json_text(compare_models(runner, comparison));
  if (experiment.removal) {
    results.removal = remove_data(
        work, *experiment.removal, results.find(experiment.removal->from));
  }
  results.stages = runner.records();
  results.output = layout::merged_model(experiment.output);
  results.experiment = experiment.text;
  std::string json = results.to_json();
  write_file(work.in(layout::kResults), json + "\n");
  return json;
}

} // namespace merganser
