#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/json_text.h"
#include "merganser/engine/execute.h"
#include "merganser/eval/evaluate.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/set_predictions.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

Json validate(
    const Workplace& work,
    const fs::path& model,
    const ProgressCallback& progress) {
  Json results;
  const std::vector<SetPredictions> found =
      predict_sets(work, &DataFiles::validation, model, progress);
  for (size_t i = 0; i < found.size(); ++i) {
    results[work.experiment.data[i].name] =
        to_json(score(found[i].log_probabilities, found[i].labels));
  }
  return results;
}

// Results of one value on the validation parts. At most one merged model of a
// sweep is on the disk.
std::vector<EvalResult> try_value(
    Workplace& work,
    const ExperimentMerge& merge,
    size_t i) {
  const Recipe recipe =
      resolve_recipe(work, merge.name, sweep_output(merge.recipe, i));
  const std::string value = fmt::format("{}", merge.sweep->values[i]);
  const fs::path file = work.in(layout::sweep(merge.name, value + ".json"));
  const fs::path trial = work.in(layout::sweep(merge.name, "trial"));
  work.runner.run(
      {.name = "sweep " + merge.name + " " + value,
       .unit = "examples",
       .inputs = evaluation_inputs(
           work, merge_inputs(work, recipe), &DataFiles::validation),
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         fs::create_directories(file.parent_path());
         fs::remove_all(trial); // of a killed run
         execute_merge(make_plan(recipe), trial);
         const Json results = validate(work, trial, progress);
         fs::remove_all(trial);
         write_file(file, json_text(results, 1) + "\n");
       }});
  return read_results(work, file);
}

} // namespace

SweepResults run_sweep(Workplace& work, const ExperimentMerge& merge) {
  SweepResults results{
      .name = merge.name,
      .method = std::string(merge.recipe.method->name),
      .parameter = merge.sweep->parameter,
      .values = {},
      .chosen = 0};
  for (size_t i = 0; i < merge.sweep->values.size(); ++i) {
    const Averages average = average_over_sets(try_value(work, merge, i));
    results.values.push_back({merge.sweep->values[i], average});
    const Averages& best = results.values[results.chosen].average;
    if (merge.sweep->by_loss ? average.loss < best.loss
                             : average.accuracy > best.accuracy) {
      results.chosen = i;
    }
  }
  return results;
}

} // namespace merganser
