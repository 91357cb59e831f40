#include "merganser/base/json_text.h"
#include "merganser/eval/evaluate.h"
#include "merganser/eval/predictions.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/set_predictions.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

struct Evaluation {
  Json results; // by set
  std::vector<Predictions> predictions;
};

Predictions to_predictions(
    const std::string& set,
    const at::Tensor& log_probabilities,
    const std::vector<int64_t>& labels) {
  const at::Tensor p = log_probabilities.exp().to(at::kFloat).contiguous();
  const auto* first = p.const_data_ptr<float>();
  return {set, {first, first + p.numel()}, labels};
}

Evaluation evaluate_on_all(
    const Workplace& work,
    const fs::path& model,
    const ProgressCallback& progress) {
  Evaluation evaluation;
  const std::vector<SetPredictions> found =
      predict_sets(work, &DataFiles::test, model, progress);
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string& name = work.experiment.data[i].name;
    const auto& [log_probabilities, labels] = found[i];
    evaluation.results[name] = to_json(score(log_probabilities, labels));
    evaluation.predictions.push_back(
        to_predictions(name, log_probabilities, labels));
  }
  return evaluation;
}

} // namespace

Json evaluation_inputs(
    Workplace& work,
    const Json& model,
    fs::path DataFiles::*part) {
  const Experiment& experiment = work.experiment;
  Json inputs = {
      {"model", model},
      {"max_length", experiment.max_length},
      {"batch_size", experiment.eval_batch_size},
      {"bfloat16", experiment.bfloat16}};
  for (size_t i = 0; i < work.data.size(); ++i) {
    inputs["data"][experiment.data[i].name] =
        work.runner.hash(work.data[i].*part);
  }
  return inputs;
}

std::vector<EvalResult> read_results(
    const Workplace& work,
    const fs::path& file) {
  const Json json = parse_json(read_file(file));
  std::vector<EvalResult> results;
  for (const ExperimentData& data : work.experiment.data) {
    results.push_back(eval_result_from_json(json[data.name]));
  }
  return results;
}

ModelResult evaluate_model(
    Workplace& work,
    const std::string& name,
    const std::string& kind,
    const std::string& path) {
  const fs::path model = work.in(path);
  const fs::path file = work.in(layout::evaluation(name));
  const fs::path predictions = work.in(layout::predictions(name));
  work.runner.run(
      {.name = "evaluate " + name,
       .unit = "examples",
       .inputs =
           evaluation_inputs(work, work.runner.hash(model), &DataFiles::test),
       .outputs = {file, predictions},
       .work = [&](const ProgressCallback& progress) {
         const Evaluation found = evaluate_on_all(work, model, progress);
         fs::create_directories(file.parent_path());
         save_predictions(predictions, found.predictions);
         write_file(file, json_text(found.results, 1) + "\n");
       }});

  return {name, kind, path, read_results(work, file)};
}

} // namespace merganser
