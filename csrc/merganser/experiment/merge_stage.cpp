#include "merganser/engine/execute.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/merge_settings.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/recipe/recipe_text.h"

namespace merganser {

namespace fs = std::filesystem;

Recipe resolve_recipe(
    const Workplace& work,
    const std::string& name,
    const Recipe& recipe) {
  const fs::path file = work.in(layout::recipe(name));
  return Recipe::parse(recipe_text(recipe), file.parent_path(), file.string());
}

Json merge_inputs(Workplace& work, const Recipe& recipe) {
  const auto hash = [&](const std::optional<fs::path>& path) {
    return path ? Json(work.runner.hash(*path)) : Json();
  };
  Json inputs = {
      {"recipe", recipe.text},
      {"base", hash(recipe.base_model)},
      {"base_fisher", hash(recipe.base_fisher)}};
  // Gram matrices have keys only where the method needs them: merges without
  // any keep the inputs that runs of earlier versions stored.
  if (recipe.base_gram) {
    inputs["base_gram"] = hash(recipe.base_gram);
  }
  if (recipe.subspace) {
    inputs["subspace"] = hash(recipe.subspace);
  }
  for (const RecipeModel& model : recipe.models) {
    Json files = {{"model", hash(model.model)}, {"fisher", hash(model.fisher)}};
    if (model.gram) {
      files["gram"] = hash(model.gram);
    }
    inputs["models"].push_back(files);
  }
  return inputs;
}

void merge_experts(
    Workplace& work,
    const std::string& name,
    const Recipe& merge) {
  const Recipe recipe = resolve_recipe(work, name, merge);
  const fs::path file = work.in(layout::recipe(name));
  if (!fs::exists(file) || read_file(file) != recipe.text) {
    fs::create_directories(file.parent_path());
    write_file(file, recipe.text);
  }
  const fs::path out = work.in(layout::merged_model(name));
  work.runner.run(
      {.name = "merge " + name,
       .unit = "MB",
       .inputs = merge_inputs(work, recipe),
       .outputs = {out},
       .work = [&](const ProgressCallback& progress) {
         execute_merge(make_plan(recipe), out, {}, progress);
       }});
}

} // namespace merganser
