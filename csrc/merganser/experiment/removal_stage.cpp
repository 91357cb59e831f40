#include "merganser/base/json_text.h"
#include "merganser/eval/predict.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/set_predictions.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/plan/planner.h"
#include "merganser/provenance/provenance.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

void create_models(Workplace& work, const ExperimentRemoval& removal) {
  const std::string& expert = layout::kRemovalExpert;
  estimate_model_fisher(work, removal.from, removal.model(), removal.seen);
  const Start from{
      work.in(removal.model()), work.in(layout::fisher(removal.from))};
  train_model(work, expert, from, removal.expert, removal.expert.data);
  estimate_model_fisher(
      work, expert, layout::model(expert), removal.expert.data);
  for (const ExperimentMerge& merge : removal.merges) {
    merge_experts(work, merge.name, merge.recipe);
  }
  train_model(
      work,
      layout::kRetrained,
      start_from_base(work),
      removal.retrained,
      removal.retrained.data);
}

std::vector<ModelResult> evaluate_models(
    Workplace& work,
    const ExperimentRemoval& removal) {
  std::vector<ModelResult> results = {evaluate_model(
      work,
      layout::kRetrained,
      "retrained",
      layout::model(layout::kRetrained))};
  for (const ExperimentMerge& merge : removal.merges) {
    results.push_back(evaluate_model(
        work, merge.name, "removal", layout::merged_model(merge.name)));
  }
  return results;
}

// Distances of models from the retrained one, whose predictions are computed
// once, for the first model whose stage runs.
class Comparison {
 public:
  explicit Comparison(Workplace& work) : work_(work) {}

  std::vector<double> run(const ModelResult& model) {
    const Experiment& experiment = work_.experiment;
    const fs::path folder = work_.in(model.path.string());
    const fs::path file = work_.in(layout::removal(model.name));
    work_.runner.run(
        {.name = "compare " + model.name,
         .unit = "examples",
         .inputs = inputs_of(folder),
         .outputs = {file},
         .work = [&](const ProgressCallback& progress) {
           const Json json = measure(folder, progress);
           fs::create_directories(file.parent_path());
           write_file(file, json_text(json, 1) + "\n");
         }});
    const Json json = parse_json(read_file(file));
    std::vector<double> distances;
    for (const ExperimentData& data : experiment.data) {
      distances.push_back(json[data.name]);
    }
    return distances;
  }

 private:
  Json inputs_of(const fs::path& model) {
    Json inputs =
        evaluation_inputs(work_, work_.runner.hash(model), &DataFiles::test);
    inputs["retrained"] = work_.runner.hash(retrained());
    return inputs;
  }

  Json measure(const fs::path& model, const ProgressCallback& progress) {
    const Experiment& experiment = work_.experiment;
    if (expected_.empty()) {
      expected_ = predict_sets(work_, &DataFiles::test, retrained(), progress);
    }
    const std::vector<SetPredictions> found =
        predict_sets(work_, &DataFiles::test, model, progress);
    Json json;
    for (size_t i = 0; i < found.size(); ++i) {
      json[experiment.data[i].name] = mean_total_variation(
          found[i].log_probabilities.exp(),
          expected_[i].log_probabilities.exp());
    }
    return json;
  }

  fs::path retrained() const {
    return work_.in(layout::model(layout::kRetrained));
  }

  Workplace& work_;
  std::vector<SetPredictions> expected_;
};

// Nothing for rules without a clamp.
std::optional<RemovalDenominators> denominators(
    const Workplace& work,
    const ExperimentMerge& merge) {
  if (merge.recipe.method->formula != MergeFormula::kRemoval) {
    return std::nullopt;
  }
  const MergePlan plan =
      make_plan(Recipe::load(work.in(layout::recipe(merge.name))));
  int64_t elements = 0;
  for (const TensorPlan& tensor : plan.tensors) {
    elements +=
        tensor.action == TensorAction::kMerge ? tensor.output.numel() : 0;
  }
  const auto provenance =
      Provenance::read(work.in(layout::merged_model(merge.name)));
  if (!provenance || elements == 0) {
    return std::nullopt;
  }
  return RemovalDenominators{
      .clamped_fraction = static_cast<double>(provenance->clamped) /
          static_cast<double>(elements),
      .largest_weight = provenance->largest_weight};
}

} // namespace

RemovalResults remove_data(
    Workplace& work,
    const ExperimentRemoval& removal,
    const ModelResult& from) {
  create_models(work, removal);
  std::vector<ModelResult> models = evaluate_models(work, removal);
  models.insert(models.begin(), from);
  RemovalResults results{.set = removal.data, .models = {}};
  Comparison comparison(work);
  for (const ModelResult& model : models) {
    const bool itself = model.name == layout::kRetrained;
    results.models.push_back(
        {model,
         itself ? std::vector<double>(model.sets.size())
                : comparison.run(model),
         std::nullopt});
  }
  for (size_t i = 0; i < removal.merges.size(); ++i) {
    results.models[i + 2].denominators = denominators(work, removal.merges[i]);
  }
  return results;
}

} // namespace merganser
