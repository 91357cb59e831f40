#include "merganser/plan/open_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "merganser/io/fisher_file.h"
#include "merganser/io/subspace_file.h"
#include "merganser/plan/check_configs.h"

namespace merganser {
namespace {

// Returns the recipe's number of examples, or else the file's.
double num_examples_of(
    const Checkpoint& statistic,
    const std::optional<double>& given,
    const char* key) {
  const auto metadata =
      FisherMetadata::parse(statistic.metadata(), statistic.files().front());
  if (given) {
    return *given;
  }
  if (!metadata) {
    throw InputError(fmt::format(
        "{} does not contain its number of examples; set {} in the recipe",
        statistic.path().string(),
        key));
  }
  return static_cast<double>(metadata->num_examples);
}

// Returns the position of a checkpoint in plan.inputs; each is opened once.
size_t open_input(MergePlan& plan, const std::filesystem::path& path) {
  for (size_t i = 0; i < plan.inputs.size(); ++i) {
    if (plan.inputs[i]->path() == path) {
      return i;
    }
  }
  plan.inputs.push_back(std::make_shared<const Checkpoint>(path));
  return plan.inputs.size() - 1;
}

// Opens a Fisher or Gram file; refuses a file of the other kind.
size_t open_statistic(
    MergePlan& plan,
    const std::filesystem::path& path,
    bool is_gram) {
  const size_t input = open_input(plan, path);
  const Metadata& metadata = plan.inputs[input]->metadata();
  const auto estimator = metadata.find("estimator");
  if (estimator != metadata.end() && estimator->second == kSubspaceEstimator) {
    throw InputError(fmt::format(
        "{} contains a subspace Fisher; expected {}",
        path.string(),
        is_gram ? "Gram matrices" : "a diagonal Fisher"));
  }
  if (estimator != metadata.end() &&
      (estimator->second == kGramEstimator) != is_gram) {
    throw InputError(fmt::format(
        "{} contains {}",
        path.string(),
        is_gram ? "a Fisher; expected Gram matrices"
                : "Gram matrices; expected a Fisher"));
  }
  return input;
}

// An adapter whose names can differ from the model's, as those of models do.
std::shared_ptr<const LoraAdapter> open_adapter(
    const std::filesystem::path& path,
    const Checkpoint& weights,
    const ModelDir& directory) {
  auto adapter = std::make_shared<LoraAdapter>(path);
  const NameMap names(adapter->tensors(), names_of(weights));
  adapter->orient(
      [&](const std::string& name) {
        return weights.find(names.name_of(name));
      },
      directory.config_text());
  return adapter;
}

PlanModel open_model(MergePlan& plan, const RecipeModel& recipe) {
  const ModelDir directory(recipe.model); // throws if a file is missing
  check_not_quantized(directory);
  PlanModel model;
  model.recipe = recipe;
  model.weights = open_input(plan, recipe.model);
  if (recipe.adapter) {
    model.adapter =
        open_adapter(*recipe.adapter, *plan.inputs[model.weights], directory);
    open_input(plan, model.adapter->checkpoint().path());
  }
  if (plan.recipe.method->needs_fishers) {
    model.fisher = open_statistic(plan, *recipe.fisher, /*is_gram=*/false);
  }
  if (recipe.gram && plan.recipe.method->needs_grams()) {
    model.gram = open_statistic(plan, *recipe.gram, /*is_gram=*/true);
  }
  return model;
}

// Sorts models by their paths. Their order in the recipe then does not change
// the bytes of a merge, except for the types of tensors merged without a base.
void sort_models(PlanSlice& slice) {
  const auto key = [](const PlanModel& model) {
    const RecipeModel& r = model.recipe;
    return std::tuple(
        r.model.string(),
        r.adapter.value_or("").string(),
        r.fisher.value_or("").string(),
        r.gram.value_or("").string());
  };
  if (slice.models.empty()) {
    return; // none could be opened
  }
  const auto first = key(slice.models.front());
  std::ranges::stable_sort(slice.models, {}, key);
  slice.first =
      std::ranges::find(slice.models, first, key) - slice.models.begin();
}

// Numbers of examples of Gram matrices of task vectors: the recipe's, otherwise
// those of the Fishers, and 1 each for methods without Fishers.
void count_for_task_vectors(MergePlan& plan) {
  size_t given = 0;
  size_t models = 0;
  for (PlanSlice& slice : plan.slices) {
    for (PlanModel& model : slice.models) {
      given += model.recipe.num_examples.has_value();
      ++models;
      model.gram_num_examples = model.fisher
          ? model.num_examples
          : model.recipe.num_examples.value_or(1);
    }
  }
  if (!plan.recipe.method->needs_fishers && given > 0 && given < models) {
    throw InputError(fmt::format(
        "expected num_examples of every model or of none, as gram: {} names no "
        "file with the others, got {} of {}",
        kTaskVectors,
        given,
        models));
  }
}

} // namespace

void open_inputs(MergePlan& plan, Problems& problems) {
  const Recipe& recipe = plan.recipe;
  if (recipe.base_model) {
    problems.collect([&] {
      plan.reference.emplace(*recipe.base_model);
      check_not_quantized(*plan.reference);
      plan.base = open_input(plan, *recipe.base_model);
      plan.reference_weights = *plan.base;
    });
  }
  if (recipe.method->needs_base_fisher) {
    problems.collect([&] {
      plan.base_fisher =
          open_statistic(plan, *recipe.base_fisher, /*is_gram=*/false);
    });
  }
  if (recipe.base_gram && recipe.method->needs_base_gram()) {
    problems.collect([&] {
      plan.base_gram =
          open_statistic(plan, *recipe.base_gram, /*is_gram=*/true);
    });
  }
  if (recipe.uses_subspace()) {
    problems.collect(
        [&] { plan.subspace = open_input(plan, *recipe.subspace); });
  }
  std::vector<RecipeSlice> slices = recipe.slices;
  if (slices.empty()) {
    slices.push_back({recipe.models, {}, 0});
  }
  for (const RecipeSlice& given : slices) {
    PlanSlice& slice = plan.slices.emplace_back();
    slice.parameters = given.parameters;
    slice.base_first_layer = given.base_first_layer;
    for (const RecipeModel& model : given.models) {
      problems.collect([&] {
        slice.models.push_back(open_model(plan, model));
        if (!recipe.base_model && !plan.reference) {
          plan.reference.emplace(model.model);
          plan.reference_weights = slice.models.back().weights;
        }
      });
    }
    sort_models(slice);
  }
}

void read_num_examples(MergePlan& plan, Problems& problems) {
  const Recipe& recipe = plan.recipe;
  if (!recipe.method->needs_num_examples) {
    return;
  }
  const auto read = [&](std::optional<size_t> input,
                        const std::optional<double>& given,
                        const char* key,
                        double& num_examples) {
    if (input) {
      problems.collect([&] {
        num_examples = num_examples_of(*plan.inputs[*input], given, key);
      });
    }
  };
  for (PlanSlice& slice : plan.slices) {
    for (PlanModel& model : slice.models) {
      const auto& given = model.recipe.num_examples;
      read(model.fisher, given, "num_examples", model.num_examples);
      read(model.gram, given, "num_examples", model.gram_num_examples);
    }
  }
  if (recipe.grams_of_task_vectors()) {
    problems.collect([&] { count_for_task_vectors(plan); });
  }
  const auto& given = recipe.base_num_examples;
  read(plan.base_fisher, given, "base_num_examples", plan.base_num_examples);
  read(plan.base_gram, given, "base_num_examples", plan.base_gram_num_examples);
}

} // namespace merganser
