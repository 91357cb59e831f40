#include "merganser/recipe/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "merganser/base/error.h"
#include "merganser/base/problems.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/yaml_value.h"
#include "merganser/recipe/methods.h"
#include "merganser/recipe/parameter_values.h"
#include "merganser/recipe/read_models.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKeys[] = {
    "merge_method",
    "base_model",
    "base_fisher",
    "base_gram",
    "subspace",
    "base_num_examples",
    "models",
    "slices",
    "parameters",
    "heads",
    "dtype",
    "out_dtype",
    "tokenizer_source"};

void parse_base(
    const YamlValue& root,
    const MethodInfo& method,
    const fs::path& folder,
    Recipe& recipe) {
  Problems problems;
  // Reads an optional key; returns false if it is missing.
  const auto take = [&](std::string_view key, bool needed, const auto& use) {
    const auto value = root.given(key);
    if (value) {
      problems.collect([&] { use(*value); });
    } else if (needed) {
      problems.collect([&] {
        root.at("merge_method")
            .fail(fmt::format("the method {} needs {}", method.name, key));
      });
    }
    return value.has_value();
  };
  const auto to = [&](auto& path) {
    return [&](const YamlValue& value) { path = value.path(folder); };
  };
  const auto to_base = [&](const YamlValue& value) {
    ModelReference reference = parse_model_reference(value, folder);
    if (reference.adapter) {
      value.fail(
          "base_model cannot have an adapter; merge the adapter into the model "
          "first, with the method passthrough");
    }
    recipe.base_model = std::move(reference.model);
  };
  const bool base = take("base_model", method.needs_base, to_base);
  if (!base && !method.needs_base && recipe.heads != HeadMode::kMerge) {
    problems.collect([&] {
      root.at("heads").fail(fmt::format(
          "heads: {} needs base_model", head_mode_name(recipe.heads)));
    });
  }
  take("base_fisher", method.needs_base_fisher, to(recipe.base_fisher));
  take("base_gram", false, to(recipe.base_gram)); // check_grams asks for it
  take("subspace", method.needs_subspace, to(recipe.subspace));
  take("base_num_examples", false, [&](const YamlValue& count) {
    recipe.base_num_examples = count.positive();
  });
  take("tokenizer_source", false, [](const YamlValue& tokenizer) {
    if (tokenizer.text() != "base") {
      tokenizer.fail(fmt::format(
          "tokenizer_source must be base, not '{}': vocabularies are not "
          "merged",
          tokenizer.text()));
    }
  });
  problems.throw_if_any();
}

// Removes the base from the models for methods that use `base_model`, as
// mergekit does, whose recipes often list it in both places.
void remove_base(std::vector<RecipeModel>& models, const Recipe& recipe) {
  if (recipe.method->needs_base) {
    std::erase_if(models, [&](const RecipeModel& model) {
      return model.model == *recipe.base_model && !model.adapter;
    });
  }
}

// Adds the list's place to the error.
void check_count_of(
    const YamlValue& list,
    const MethodInfo& method,
    const std::vector<RecipeModel>& models) {
  try {
    check_count(method, static_cast<int>(models.size()));
  } catch (const InputError& error) {
    list.fail(error.what());
  }
}

void finish_slices(const YamlValue& list, Recipe& recipe) {
  const std::vector<YamlValue> entries = list.items();
  for (size_t i = 0; i < entries.size(); ++i) {
    RecipeSlice& slice = recipe.slices[i];
    slice.base_first_layer = slice.models.front().first_layer;
    for (const RecipeModel& model : slice.models) {
      if (model.model == recipe.base_model) {
        slice.base_first_layer = model.first_layer;
      }
    }
    remove_base(slice.models, recipe);
    check_count_of(entries[i], *recipe.method, slice.models);
  }
}

// Checks `weight: auto`, which belongs to whole models.
void check_auto_weights(const YamlValue& root, const Recipe& recipe) {
  for (const RecipeSlice& slice : recipe.slices) {
    for (const RecipeModel& model : slice.models) {
      const Setting* weight = find_setting(
          "weight", {&model.parameters, &slice.parameters, &recipe.parameters});
      if (weight != nullptr && weight->has_auto()) {
        root.at("slices").fail("weight: auto expects models, got slices");
      }
    }
  }
  try {
    if (recipe.has_auto_weights() && !recipe.subspace) {
      throw InputError(
          "weight: auto needs the key subspace, the file of merganser "
          "subspace");
    }
  } catch (const InputError& error) {
    root.at("models").fail(error.what());
  }
}

// Checks what the choice of Gram matrices needs.
void check_grams(const YamlValue& root, const Recipe& recipe) {
  const MethodInfo& method = *recipe.method;
  if (!method.needs_grams()) {
    return;
  }
  size_t files = 0;
  size_t task_vectors = 0;
  const auto count = [&](const RecipeModel& model) {
    files += model.gram.has_value();
    task_vectors += model.gram_of_task_vector;
  };
  std::ranges::for_each(recipe.models, count);
  for (const RecipeSlice& slice : recipe.slices) {
    std::ranges::for_each(slice.models, count);
  }
  const YamlValue place = root.at("merge_method");
  if (task_vectors > 0 && files > 0) {
    place.fail(fmt::format(
        "expected gram: {} of every model or of none, got {} and {} files",
        kTaskVectors,
        task_vectors,
        files));
  }
  if (task_vectors > 0 && !recipe.base_model) {
    place.fail(fmt::format("gram: {} needs base_model", kTaskVectors));
  }
  if (task_vectors == 0 && method.needs_base_gram() && !recipe.base_gram) {
    place.fail(fmt::format("the method {} needs base_gram", method.name));
  }
}

// Checks weights that do not depend on the tensor; the plan checks the others.
void check_weights(const YamlValue& models, const Recipe& recipe) {
  const ParameterInfo* weight = recipe.method->find_parameter("weight");
  if (weight == nullptr) {
    return;
  }
  std::vector<double> weights;
  for (const RecipeModel& model : recipe.models) {
    const Setting* setting =
        find_setting("weight", {&model.parameters, &recipe.parameters});
    if (setting == nullptr && !weight->fallback) {
      models.fail(fmt::format(
          "the method {} needs the parameter weight of every model",
          recipe.method->name));
    }
    if (setting != nullptr && !setting->is_constant()) {
      return;
    }
    weights.push_back(
        setting == nullptr ? *weight->fallback : *setting->at("", 0));
  }
  const Setting* normalize = find_setting("normalize", {&recipe.parameters});
  const bool divides = normalize != nullptr && normalize->is_constant()
      ? *normalize->at("", 0) != 0
      : recipe.method->fallback("normalize") != 0;
  if (weights_sum_to_zero(*recipe.method, weights, divides)) {
    models.fail("the weights of the models must not sum to 0");
  }
}

} // namespace

Recipe Recipe::load(const fs::path& path) {
  return parse(read_file(path), path.parent_path(), path.string());
}

Recipe Recipe::parse(
    const std::string& yaml,
    const fs::path& folder,
    const std::string& source_name) {
  const YamlValue root = YamlValue::parse(yaml, source_name);
  Problems problems;
  root.expect_keys(kKeys, problems);
  Recipe recipe;
  recipe.source = source_name;
  recipe.text = yaml;
  // Replaces an unknown method, so that the rest is checked as well.
  recipe.method = &method_of(MergeFormula::kLinear);
  problems.collect(
      [&] { recipe.method = &parse_method(root.at("merge_method")); });
  const MethodInfo& method = *recipe.method;
  problems.collect([&] { parse_recipe_options(root, recipe); });
  problems.collect([&] { parse_base(root, method, folder, recipe); });
  const auto slices = root.given("slices");
  problems.collect([&] {
    if (slices && root.given("models")) {
      slices->fail("models and slices exclude each other; remove one of them");
    }
    if (slices) {
      recipe.slices = parse_slices(*slices, method, folder);
    } else {
      recipe.models = parse_models(root.at("models"), method, folder);
    }
  });
  problems.collect([&] { check_grams(root, recipe); });
  problems.throw_if_any(); // counting needs valid lists
  check_auto_weights(root, recipe);

  if (slices) {
    finish_slices(*slices, recipe);
    if (recipe.heads != HeadMode::kMerge) {
      root.at("heads").fail("slices require heads: merge");
    }
  } else {
    const YamlValue models = root.at("models");
    remove_base(recipe.models, recipe);
    check_count_of(models, method, recipe.models);
    check_weights(models, recipe);
  }
  return recipe;
}

} // namespace merganser
