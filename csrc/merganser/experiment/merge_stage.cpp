#include "merganser/engine/execute.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/merge_settings.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"

namespace merganser {

void merge_experts(Workplace& work, const ExperimentMerge& merge) {
  namespace fs = std::filesystem;
  const std::string text = recipe_text(merge.recipe);
  const fs::path file = work.in(layout::recipe(merge.name));
  if (!fs::exists(file) || read_file(file) != text) {
    fs::create_directories(file.parent_path());
    write_file(file, text);
  }
  // Read back, so that the merge is the one in the file.
  const Recipe recipe = Recipe::load(file);
  const auto hash = [&](const std::optional<fs::path>& path) {
    return path ? Json(work.runner.hash(*path)) : Json();
  };
  Json inputs = {
      {"recipe", text},
      {"base", hash(recipe.base_model)},
      {"base_fisher", hash(recipe.base_fisher)}};
  for (const RecipeModel& model : recipe.models) {
    inputs["models"].push_back(
        {{"model", hash(model.model)}, {"fisher", hash(model.fisher)}});
  }
  const fs::path out = work.in(layout::merged_model(merge.name));
  work.runner.run(
      {.name = "merge " + merge.name,
       .unit = "MB",
       .inputs = inputs,
       .output = out,
       .work = [&](const ProgressCallback& progress) {
         execute_merge(make_plan(recipe), out, {}, progress);
       }});
}

} // namespace merganser
