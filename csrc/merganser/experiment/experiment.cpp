#include "merganser/experiment/experiment.h"

#include "merganser/experiment/layout.h"
#include "merganser/experiment/stage_runner.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

void create_models(Workplace& work) {
  const Experiment& e = work.experiment;
  const Start encoder{e.encoder, {}};
  train_model(work, layout::kBase, encoder, e.base, e.base.data);
  // Before the experts, whose training may have a proximal term.
  estimate_model_fisher(
      work, layout::kBase, layout::model(layout::kBase), e.base.data);
  const Start base = start_from_base(work);
  for (const size_t data : e.experts.data) {
    const std::string& name = e.data[data].name;
    train_model(work, name, base, e.experts, {data});
    estimate_model_fisher(work, name, layout::model(name), {data});
  }
  if (e.target) {
    train_model(work, layout::kTarget, base, *e.target, e.target->data);
  }
  for (const ExperimentMerge& merge : e.merges) {
    merge_experts(work, merge);
  }
}

std::vector<ModelResult> evaluate_models(Workplace& work) {
  const Experiment& e = work.experiment;
  std::vector<ModelResult> results;
  const auto add = [&](const std::string& name, const char* kind) {
    results.push_back(evaluate_model(work, name, kind, layout::model(name)));
  };
  add(layout::kBase, "base");
  for (const size_t data : e.experts.data) {
    add(e.data[data].name, "expert");
  }
  if (e.target) {
    add(layout::kTarget, "target");
  }
  for (const ExperimentMerge& merge : e.merges) {
    results.push_back(evaluate_model(
        work, merge.name, "merge", layout::merged_model(merge.name)));
  }
  return results;
}

void measure_mismatches(Workplace& work, std::vector<ModelResult>& models) {
  MismatchStages stages(work);
  for (ModelResult& model : models) {
    if (model.kind == "target" || model.kind == "merge") {
      model.mismatch = stages.measure(model);
    }
  }
}

} // namespace

ExperimentResults run_experiment(
    const Experiment& experiment,
    const std::filesystem::path& out,
    const ExperimentEvents& events) {
  StageRunner runner(out, events);
  Workplace work{experiment, runner, out};
  // Never leaves old results next to new models.
  std::filesystem::remove(work.in(layout::kResults));
  ExperimentResults results;
  for (const ExperimentData& data : experiment.data) {
    results.sets.push_back(data.name);
  }
  results.majority = check_data(work);
  create_models(work);
  results.models = evaluate_models(work);
  if (experiment.mismatch) {
    measure_mismatches(work, results.models);
  }
  if (experiment.removal) {
    results.removal = remove_data(
        work, *experiment.removal, results.find(experiment.removal->from));
  }
  results.stages = runner.records();
  results.output = layout::merged_model(experiment.output);
  results.experiment = experiment.text;
  write_file(work.in(layout::kResults), results.to_json() + "\n");
  return results;
}

} // namespace merganser
