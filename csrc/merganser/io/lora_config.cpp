#include "merganser/io/lora_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

// PEFT's rule: a pattern is a module's name, or its end after a dot.
double pattern_value(
    const json& patterns,
    const std::string& module,
    double fallback) {
  for (const auto& [pattern, value] : patterns.items()) {
    if (("." + module).ends_with("." + pattern)) {
      return value.get<double>();
    }
  }
  return fallback;
}

// PEFT also allows regular expressions; only plain names are supported.
void check_patterns(const json& patterns, const fs::path& file) {
  for (const auto& [pattern, value] : patterns.items()) {
    if (pattern.find_first_of("*+?[](){}|^$\\") != std::string::npos ||
        !value.is_number()) {
      throw InputError(fmt::format(
          "{}: the pattern {} is not a plain name with a number; merge the "
          "adapter into its model with PEFT first",
          file.string(),
          quote(pattern)));
    }
  }
}

// Keys of PEFT's configuration with which the model is W + scale B A: those
// read here, those of the training and of its start, and those that select
// modules, which are done with once A and B exist. Every other one may be
// other arithmetic, or add tensors.
constexpr std::string_view kPlain[] = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias", // below
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights", // below
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core", // without megatron_config
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size", // without use_qalora
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
    "velora_config", // changes gradients only
};

bool is_empty(const json& value) {
  return value == false || value == 0 || value == "" ||
      ((value.is_array() || value.is_object()) && value.empty());
}

// Initializations that subtract the first B A from the base (PiSSA, OLoRA,
// CorDA, LoRA-GA) or quantize it (LoftQ): PEFT repeats that when it loads the
// adapter. An unknown one may do so too.
bool changes_base(const json& init) {
  if (init.is_boolean()) {
    return false;
  }
  std::string name = init.is_string() ? init.get<std::string>() : "";
  std::ranges::transform(
      name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::string_view kHarmless[] = {
      "gaussian", "eva", "orthogonal", "mica"};
  return std::ranges::find(kHarmless, name) == std::end(kHarmless);
}

} // namespace

LoraConfig read_lora_config(const fs::path& file) {
  json config = parse_json_or_discard(read_file(file));
  const auto refuse = [&](const std::string& what) {
    throw InputError(fmt::format("{}: {}", file.string(), what));
  };
  if (!config.is_object()) {
    refuse("is not the configuration of a LoRA adapter");
  }
  for (auto entry = config.begin(); entry != config.end();) {
    entry = entry->is_null() ? config.erase(entry) : std::next(entry); // absent
  }
  const json type = config.value("peft_type", json());
  if (!type.is_string()) {
    refuse("is not the configuration of a LoRA adapter");
  }
  if (type != "LORA") {
    refuse(fmt::format(
        "peft_type {} is not supported; merge the adapter into its model with "
        "PEFT first",
        json_text(type)));
  }
  for (const auto& [key, value] : config.items()) {
    if (std::ranges::find(kPlain, key) == std::end(kPlain) &&
        !is_empty(value)) {
      refuse(fmt::format(
          "has {}, but only plain LoRA adapters can be merged on the fly; "
          "merge it into its model with PEFT first",
          key));
    }
  }
  if (const auto given = config.find("init_lora_weights");
      given != config.end() && changes_base(*given)) {
    refuse(fmt::format(
        "init_lora_weights {} changes the weights of the base; save the "
        "adapter with path_initial_model_for_weight_conversion, or merge it "
        "into its model with PEFT first",
        json_text(*given)));
  }
  if (config.value("bias", json("none")) != "none") {
    refuse(
        "has trained biases, which are not supported; merge it into its model "
        "with PEFT first");
  }
  LoraConfig found;
  try {
    found.alpha = config.at("lora_alpha").get<double>();
    found.rank = config.at("r").get<double>();
    found.rank_stabilised = config.value("use_rslora", false);
    found.transposed = config.value("fan_in_fan_out", false);
    found.ranks = config.value("rank_pattern", json::object());
    found.alphas = config.value("alpha_pattern", json::object());
  } catch (const json::exception& error) {
    refuse(std::string("is damaged: ") + error.what());
  }
  check_patterns(found.ranks, file);
  check_patterns(found.alphas, file);
  return found;
}

double LoraConfig::rank_of(const std::string& module) const {
  return pattern_value(ranks, module, rank);
}

double LoraConfig::scale_of(const std::string& module) const {
  const double r = rank_of(module);
  const double a = pattern_value(alphas, module, alpha);
  return a / (rank_stabilised ? std::sqrt(r) : r);
}

} // namespace merganser
