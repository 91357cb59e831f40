#include "merganser/base/json_text.h"
#include "merganser/eval/evaluate.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/model/classifier.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

Json evaluate_on_all(
    const Experiment& experiment,
    const fs::path& model,
    const ProgressCallback& progress) {
  Json results;
  for_each_test_set(
      experiment,
      model,
      progress,
      [&](size_t i,
          Classifier& classifier,
          const Dataset& set,
          const ProgressCallback& counted) {
        const EvalResult result = evaluate(
            classifier.encoder,
            set,
            classifier.tokenizer->pad_id(),
            experiment.eval_batch_size,
            experiment.bfloat16,
            counted);
        results[experiment.data[i].name] = {
            {"examples", result.examples},
            {"accuracy", result.accuracy},
            {"loss", result.loss}};
      });
  return results;
}

} // namespace

Json test_inputs(Workplace& work, const fs::path& model) {
  const Experiment& experiment = work.experiment;
  Json inputs = {
      {"model", work.runner.hash(model)},
      {"max_length", experiment.max_length},
      {"batch_size", experiment.eval_batch_size},
      {"bfloat16", experiment.bfloat16}};
  for (const ExperimentData& data : experiment.data) {
    inputs["data"][data.name] = work.runner.hash(data.test);
  }
  return inputs;
}

void for_each_test_set(
    const Experiment& experiment,
    const fs::path& model,
    const ProgressCallback& progress,
    const UseTestSet& use) {
  Classifier classifier(model);
  std::vector<Dataset> sets;
  int64_t total = 0;
  for (const ExperimentData& data : experiment.data) {
    sets.push_back(classifier.load(data.test, experiment.max_length));
    total += sets.back().size();
  }
  int64_t before = 0;
  for (size_t i = 0; i < sets.size(); ++i) {
    use(i,
        classifier,
        sets[i],
        [&](int64_t done, int64_t, const std::string& text) {
          progress(before + done, total, text);
        });
    before += sets[i].size();
  }
}

ModelResult evaluate_model(
    Workplace& work,
    const std::string& name,
    const std::string& kind,
    const std::string& path) {
  const Experiment& experiment = work.experiment;
  const fs::path model = work.in(path);
  const fs::path file = work.in(layout::evaluation(name));
  work.runner.run(
      {.name = "evaluate " + name,
       .unit = "examples",
       .inputs = test_inputs(work, model),
       .output = file,
       .work = [&](const ProgressCallback& progress) {
         const Json results = evaluate_on_all(experiment, model, progress);
         fs::create_directories(file.parent_path());
         write_file(file, json_text(results, 1) + "\n");
       }});

  const Json json = parse_json(read_file(file));
  ModelResult result{name, kind, path, {}};
  for (const ExperimentData& data : experiment.data) {
    const Json& set = json[data.name];
    result.sets.push_back({set["examples"], set["accuracy"], set["loss"]});
  }
  return result;
}

} // namespace merganser
