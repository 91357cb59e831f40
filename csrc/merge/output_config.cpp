#include "merge/output_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/atomic_file.h"
#include "io/error.h"
#include "merge/recipe_options.h"

namespace merganser {

void check_config(const std::filesystem::path& config) {
  const auto json = nlohmann::json::parse(
      read_file(config), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    throw InputError(fmt::format("{}: is no JSON object", config.string()));
  }
}

void set_config_layers(const std::filesystem::path& config, int layers) {
  auto json = nlohmann::ordered_json::parse(read_file(config));
  for (const char* key :
       {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}) {
    if (json.contains(key)) {
      json[key] = layers;
    }
  }
  write_file(config, json.dump(2) + "\n");
}

void set_config_dtype(const std::filesystem::path& config, DType dtype) {
  auto json = nlohmann::ordered_json::parse(read_file(config));
  // transformers 5 writes "dtype", earlier ones "torch_dtype".
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] =
      torch_dtype_name(dtype);
  write_file(config, json.dump(2) + "\n");
}

} // namespace merganser
