#include "merganser/plan/output_config.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"
#include "merganser/recipe/read_options.h"

namespace merganser {

namespace fs = std::filesystem;

void check_output_config(const fs::path& config) {
  const auto json = parse_json_or_discard(read_file(config));
  if (!json.is_object()) {
    throw InputError(
        fmt::format("{}: expected a JSON object", config.string()));
  }
}

void set_config_layers(
    const fs::path& config,
    const std::vector<RecipeSlice>& slices) {
  std::vector<size_t> layers; // the reference's, in the output's order
  for (const RecipeSlice& slice : slices) {
    const RecipeModel& first = slice.models.front();
    for (int i = first.first_layer; i < first.last_layer; ++i) {
      layers.push_back(static_cast<size_t>(i));
    }
  }
  auto json = parse_json(read_file(config));
  size_t before = 0;
  for (const char* key :
       {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}) {
    if (json.contains(key) && json[key].is_number_unsigned()) {
      before = json[key];
      json[key] = layers.size();
    }
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
  // transformers 5 writes "dtype", earlier ones "torch_dtype".
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] =
      torch_dtype_name(dtype);
  write_file(config, json_text(json, 2) + "\n");
}

} // namespace merganser
