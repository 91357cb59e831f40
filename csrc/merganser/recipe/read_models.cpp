#include "merganser/recipe/read_models.h"

#include <fmt/format.h>

#include <utility>

#include "merganser/base/problems.h"
#include "merganser/io/hub_cache.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// mergekit's mapping {path: ..., revision: ...}, or the path alone.
fs::path parse_model_path(const YamlValue& value, const fs::path& folder) {
  if (!value.is_mapping()) {
    return parse_model_directory(value, folder);
  }
  value.expect_keys({"path", "revision"});
  const YamlValue path = value.at("path");
  const auto revision = value.given("revision");
  if (!revision) {
    return parse_model_directory(path, folder);
  }
  if (!parse_hub_model(path.text()) || fs::exists(path.path(folder))) {
    revision->fail(fmt::format(
        "{} is of no use: a local directory has no revisions",
        revision->name()));
  }
  return revision->through([&](const std::string& name) {
    const std::string text = path.text() + "@" + name;
    return find_model(text, folder / text);
  });
}

void parse_layer_range(const YamlValue& range, RecipeModel& model) {
  const auto ends = range.items();
  if (ends.size() != 2) {
    range.fail(fmt::format(
        "{} must be two numbers, the first layer and the one after the last",
        range.name()));
  }
  constexpr int64_t kMost = 100'000;
  model.first_layer = static_cast<int>(ends[0].integer(0, kMost));
  model.last_layer =
      static_cast<int>(ends[1].integer(model.first_layer + 1, kMost));
}

// `layers`: the entry is a source of a slice, with layer_range.
RecipeModel parse_model(
    const YamlValue& entry,
    const MethodInfo& method,
    const fs::path& folder,
    bool layers) {
  std::vector<std::string_view> keys = {
      "model", "adapter", "fisher", "gram", "num_examples", "parameters"};
  if (layers) {
    keys.push_back("layer_range");
  }
  Problems problems;
  entry.expect_keys(keys, problems);
  RecipeModel model;
  problems.collect([&] {
    ModelReference reference = parse_model_reference(entry.at("model"), folder);
    model.model = std::move(reference.model);
    model.adapter = std::move(reference.adapter);
  });
  const auto take = [&](std::string_view key, const auto& use) {
    const auto value = entry.given(key);
    if (value) {
      problems.collect([&] { use(*value); });
    }
    return value.has_value();
  };
  const auto need = [&](std::string_view key, std::string_view what) {
    problems.collect([&] {
      entry.fail(fmt::format(
          "{} needs the key {}: the method {} uses {} of every model",
          entry.name(),
          key,
          method.name,
          what));
    });
  };
  take("adapter", [&](const YamlValue& adapter) {
    model.adapter = parse_model_directory(adapter, folder);
  });
  const auto take_fisher = [&](const YamlValue& fisher) {
    model.fisher = fisher.path(folder);
  };
  if (!take("fisher", take_fisher) && method.needs_fishers) {
    need("fisher", "a Fisher");
  }
  const auto take_gram = [&](const YamlValue& gram) {
    model.gram_of_task_vector = gram.text() == kTaskVectors;
    if (!model.gram_of_task_vector) {
      model.gram = gram.path(folder);
    }
  };
  if (!take("gram", take_gram) && method.needs_grams()) {
    need("gram", "the Gram matrices");
  }
  take("num_examples", [&](const YamlValue& count) {
    model.num_examples = count.positive();
  });
  take("parameters", [&](const YamlValue& parameters) {
    model.parameters =
        parse_settings(parameters, method, ParameterInfo::Scope::kModel);
  });
  if (layers) {
    problems.collect(
        [&] { parse_layer_range(entry.at("layer_range"), model); });
  }
  problems.throw_if_any();
  return model;
}

std::vector<RecipeModel> parse_list(
    const YamlValue& list,
    const MethodInfo& method,
    const fs::path& folder,
    bool layers) {
  std::vector<RecipeModel> models;
  Problems problems;
  for (const YamlValue& entry : list.items()) {
    problems.collect(
        [&] { models.push_back(parse_model(entry, method, folder, layers)); });
  }
  problems.throw_if_any();
  return models;
}

RecipeSlice parse_slice(
    const YamlValue& entry,
    const MethodInfo& method,
    const fs::path& folder) {
  constexpr std::string_view kKeys[] = {"sources", "parameters"};
  Problems problems;
  entry.expect_keys(kKeys, problems);
  RecipeSlice slice;
  problems.collect([&] {
    const YamlValue sources = entry.at("sources");
    slice.models = parse_list(sources, method, folder, /*layers=*/true);
    const auto count = [](const RecipeModel& model) {
      return model.last_layer - model.first_layer;
    };
    for (const RecipeModel& model : slice.models) {
      if (count(model) != count(slice.models.front())) {
        sources.fail(fmt::format(
            "{} must have the same number of layers of each model",
            sources.name()));
      }
    }
  });
  if (const auto parameters = entry.given("parameters")) {
    problems.collect([&] {
      slice.parameters =
          parse_settings(*parameters, method, ParameterInfo::Scope::kMerge);
    });
  }
  problems.throw_if_any();
  return slice;
}

} // namespace

ModelReference parse_model_reference(
    const YamlValue& value,
    const fs::path& folder) {
  if (value.is_mapping()) {
    value.expect_keys({"model", "lora", "override_architecture"});
    if (const auto other = value.given("override_architecture")) {
      other->fail(fmt::format(
          "{} is not supported; change config.json of the model",
          other->name()));
    }
    ModelReference found{parse_model_path(value.at("model"), folder), {}};
    if (const auto lora = value.given("lora")) {
      found.adapter = parse_model_path(*lora, folder);
    }
    return found;
  }
  const std::string text = value.text();
  const size_t plus = text.rfind('+');
  std::error_code ignored;
  // A directory may have a + in its name.
  if (plus == text.npos || fs::exists(value.path(folder), ignored)) {
    return {parse_model_directory(value, folder), {}};
  }
  return value.through([&](const std::string&) {
    const auto find = [&](const std::string& part) {
      return find_model(part, (folder / part).lexically_normal());
    };
    return ModelReference{
        find(text.substr(0, plus)), find(text.substr(plus + 1))};
  });
}

std::vector<RecipeModel> parse_models(
    const YamlValue& list,
    const MethodInfo& method,
    const fs::path& folder) {
  return parse_list(list, method, folder, /*layers=*/false);
}

std::vector<RecipeSlice> parse_slices(
    const YamlValue& list,
    const MethodInfo& method,
    const fs::path& folder) {
  std::vector<RecipeSlice> slices;
  Problems problems;
  for (const YamlValue& entry : list.items()) {
    problems.collect(
        [&] { slices.push_back(parse_slice(entry, method, folder)); });
  }
  problems.throw_if_any();
  return slices;
}

} // namespace merganser
