#include <algorithm>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/objective/subspace_fisher.h"

namespace merganser {

void estimate_subspace(Workplace& work) {
  const Experiment& e = work.experiment;
  const auto needs = [](const ExperimentMerge& merge) {
    return merge.recipe.uses_subspace();
  };
  if (std::ranges::none_of(e.merges, needs)) {
    return;
  }
  const auto source = [&](const std::string& name, size_t data) {
    return SubspaceFisherOptions::Model{
        work.in(layout::model(name)), work.data[data].train};
  };
  SubspaceFisherOptions options{
      .base = source(layout::kBase, e.base.data.front()),
      .experts = {},
      .limit = e.fisher.limit,
      .seed = e.fisher.seed,
      .batch_size = e.fisher.batch_size,
      .max_length = e.max_length,
      .bfloat16 = e.fisher.bfloat16};
  for (const size_t data : e.experts.data) {
    options.experts.push_back(source(e.data[data].name, data));
  }
  const auto hashes = [&](const SubspaceFisherOptions::Model& from) {
    return Json{
        {"model", work.runner.hash(from.model)},
        {"data", work.runner.hash(from.data)}};
  };
  Json inputs = {
      {"base", hashes(options.base)},
      {"groups", grouping_name(options.groups)},
      {"points", options.points},
      {"limit", options.limit},
      {"seed", options.seed},
      {"batch_size", options.batch_size},
      {"max_length", options.max_length},
      {"bfloat16", options.bfloat16}};
  for (const SubspaceFisherOptions::Model& expert : options.experts) {
    inputs["experts"].push_back(hashes(expert));
  }
  for (const ExperimentMerge& merge : e.merges) {
    for (const std::string& name : merge.directions) {
      const std::filesystem::path model = work.in(layout::merged_model(name));
      if (std::ranges::find(options.directions, model) ==
          options.directions.end()) {
        options.directions.push_back(model);
        inputs["directions"].push_back(work.runner.hash(model));
      }
    }
  }
  const std::filesystem::path file = work.in(layout::kSubspace);
  work.runner.run(
      {.name = "subspace",
       .unit = "examples",
       .inputs = inputs,
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         estimate_subspace_fisher(options, progress).save(file);
       }});
}

} // namespace merganser
