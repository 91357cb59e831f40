#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace merganser {

// The adapter_config.json of a plain LoRA adapter: the update of a module's
// weight is scale_of(module) B A.
struct LoraConfig {
  // PEFT takes the first pattern that fits, so that their order counts.
  using Patterns = nlohmann::ordered_json;

  double alpha = 1;
  double rank = 1;
  bool rank_stabilised = false;
  bool transposed = false;
  Patterns ranks = Patterns::object();
  Patterns alphas = Patterns::object();

  double rank_of(const std::string& module) const;
  double scale_of(const std::string& module) const;
};

// Throws InputError for the configuration of any other adapter.
LoraConfig read_lora_config(const std::filesystem::path& file);

} // namespace merganser
