#include <algorithm>

#include "merganser/engine/execute.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/fisher_file.h"
#include "merganser/objective/fisher_scale.h"
#include "merganser/recipe/methods.h"
#include "merganser/recipe/recipe_text.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// The plain average of all experts.
void average_experts(Workplace& work) {
  Recipe average;
  average.method = &find_method("linear");
  for (const size_t data : work.experiment.experts.data) {
    RecipeModel expert;
    expert.model = "../" + layout::model(work.experiment.data[data].name);
    average.models.push_back(expert);
  }
  const fs::path out = work.in(layout::kAverage);
  const Recipe recipe =
      Recipe::parse(recipe_text(average), out.parent_path(), layout::kAverage);
  work.runner.run(
      {.name = "average",
       .unit = "MB",
       .inputs = merge_inputs(work, recipe),
       .outputs = {out},
       .work = [&](const ProgressCallback& progress) {
         execute_merge(make_plan(recipe), out, {}, progress);
       }});
}

void calibrate(Workplace& work, const std::string& name, size_t data) {
  const FisherOptions& fisher = work.experiment.fisher;
  const FisherScaleOptions options{
      .fisher = work.in(layout::fisher(name)),
      .model = work.in(layout::model(name)),
      .merge = work.in(layout::kAverage),
      .data = work.data[data].train,
      .limit = fisher.limit,
      .seed = fisher.seed,
      .batch_size = fisher.batch_size,
      .max_length = work.experiment.max_length,
      .bfloat16 = fisher.bfloat16};
  const fs::path file = work.in(layout::calibrated(name));
  work.runner.run(
      {.name = "calibrate " + name,
       .unit = "examples",
       .inputs =
           {{"fisher", work.runner.hash(options.fisher)},
            {"model", work.runner.hash(options.model)},
            {"merge", work.runner.hash(options.merge)},
            {"data", work.runner.hash(options.data)},
            {"limit", options.limit},
            {"seed", options.seed},
            {"batch_size", options.batch_size},
            {"max_length", options.max_length},
            {"bfloat16", options.bfloat16}},
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         copy_with_scale(
             options.fisher, file, measure_fisher_scale(options, progress));
       }});
}

} // namespace

void calibrate_fishers(Workplace& work) {
  const Experiment& e = work.experiment;
  const auto uses = [&](std::string_view scale) {
    return std::ranges::any_of(e.merges, [&](const ExperimentMerge& merge) {
      return uses_measured_scale(merge.recipe, scale);
    });
  };
  const bool of_base = uses("base_fisher_scale");
  const bool of_experts = uses("fisher_scale");
  if (of_base || of_experts) {
    average_experts(work);
  }
  if (of_base) {
    calibrate(work, layout::kBase, e.base.data.front());
  }
  if (of_experts) {
    for (const size_t data : e.experts.data) {
      calibrate(work, e.data[data].name, data);
    }
  }
}

} // namespace merganser
