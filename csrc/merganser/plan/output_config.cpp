#include "merganser/plan/output_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"
#include "merganser/recipe/layer_name.h"
#include "merganser/recipe/read_options.h"

namespace merganser {

namespace fs = std::filesystem;

namespace {

using nlohmann::ordered_json;

constexpr const char* kLayers[] = {
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers"};

// Keys of models with two stacks of layers, or with stages of them.
constexpr const char* kOtherLayers[] = {
    "num_decoder_layers",
    "num_encoder_layers",
    "decoder_layers",
    "encoder_layers",
    "depths"};

// Numbers of the reference's layers, in the output's order.
std::vector<size_t> layers_of(const std::vector<RecipeSlice>& slices) {
  std::vector<size_t> layers;
  for (const RecipeSlice& slice : slices) {
    const RecipeModel& first = slice.models.front();
    for (int i = first.first_layer; i < first.last_layer; ++i) {
      layers.push_back(static_cast<size_t>(i));
    }
  }
  return layers;
}

// True for lists of layers by their numbers: mlp_only_layers, moe_layers,
// attn_layer_indices, hybrid_layer_ids. A list with an entry per layer is none.
bool names_layers(
    const std::string& key,
    const ordered_json& value,
    size_t num_layers) {
  const bool is_list = key.ends_with("layers") || key.ends_with("layer_ids") ||
      key.ends_with("layer_indices");
  return is_list && value.is_array() && !value.empty() &&
      value.size() != num_layers &&
      std::ranges::all_of(value, [](const ordered_json& item) {
           return item.is_number_integer();
         });
}

// Sets the type where the configuration, or one inside it, names it.
void replace_dtype(ordered_json& config, const std::string& name) {
  for (auto& [key, value] : config.items()) {
    if (key == "dtype" || key == "torch_dtype") {
      value = name;
    } else if (value.is_object() && key.ends_with("_config")) {
      replace_dtype(value, name);
    }
  }
}

} // namespace

void check_single_stack(
    const fs::path& config,
    const std::vector<TensorInfo>& tensors) {
  std::set<std::string> stacks;
  for (const TensorInfo& tensor : tensors) {
    if (const auto stack = stack_of(tensor.name)) {
      stacks.insert(quote(*stack));
    }
  }
  const auto refuse = [&](const std::string& what) {
    throw InputError(fmt::format(
        "{}: {}, but slices can only renumber the layers of one stack",
        config.string(),
        what));
  };
  if (stacks.size() > 1) {
    refuse(fmt::format(
        "describes a model with several stacks of layers ({})",
        fmt::join(stacks, ", ")));
  }
  const auto json = parse_json(read_file(config));
  for (const char* key : kOtherLayers) {
    if (json.contains(key) && !json[key].is_null()) {
      refuse(fmt::format("has {}", key));
    }
  }
  for (const auto& [key, value] : json.items()) {
    for (const char* layers : kLayers) {
      if (value.is_object() && value.contains(layers)) {
        refuse(fmt::format("has {} in {}", layers, key));
      }
    }
  }
}

void check_output_config(const fs::path& config) {
  const auto json = parse_json_or_discard(read_file(config));
  if (!json.is_object()) {
    throw InputError(
        fmt::format("{}: expected a JSON object", config.string()));
  }
}

void check_layer_numbers(
    const fs::path& config,
    const std::vector<RecipeSlice>& slices) {
  const auto json = parse_json(read_file(config));
  const std::vector<size_t> layers = layers_of(slices);
  size_t num_layers = 0;
  for (const char* key : kLayers) {
    if (json.contains(key) && json[key].is_number_unsigned()) {
      num_layers = json[key];
    }
  }
  std::vector<size_t> unchanged(num_layers);
  std::iota(unchanged.begin(), unchanged.end(), 0);
  for (const auto& [key, value] : json.items()) {
    if (layers != unchanged && names_layers(key, value, num_layers)) {
      throw InputError(fmt::format(
          "{}: {} {} names layers by their numbers, which slices change; "
          "remove "
          "it, and set it in the output",
          config.string(),
          key,
          json_text(value)));
    }
  }
}

void set_config_layers(
    const fs::path& config,
    const std::vector<RecipeSlice>& slices) {
  const std::vector<size_t> layers = layers_of(slices);
  auto json = parse_json(read_file(config));
  size_t before = 0;
  bool is_set = false;
  for (const char* key : kLayers) {
    if (json.contains(key) && json[key].is_number_unsigned()) {
      before = json[key];
      json[key] = layers.size();
      is_set = true;
    }
  }
  if (!is_set) { // the model type's default
    json[kLayers[0]] = layers.size();
  }
  for (auto& [key, value] : json.items()) {
    if (key.find("layer") == std::string::npos || !value.is_array() ||
        value.size() != before || std::ranges::max(layers) >= before) {
      continue;
    }
    const auto whole = value;
    value.clear();
    for (const size_t layer : layers) {
      value.push_back(whole[layer]);
    }
  }
  write_file(config, json_text(json, 2) + "\n");
}

void set_config_dtype(const fs::path& config, DType dtype) {
  auto json = parse_json(read_file(config));
  const std::string name(torch_dtype_name(dtype));
  // transformers 5 writes "dtype", earlier ones "torch_dtype".
  if (!json.contains("dtype")) {
    json["torch_dtype"] = name;
  }
  replace_dtype(json, name);
  write_file(config, json_text(json, 2) + "\n");
}

} // namespace merganser
