#include "merganser/io/lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json; // PEFT takes the first pattern that fits

constexpr std::string_view kPrefix = "base_model.model.";

struct Config {
  double alpha = 1;
  double rank = 1;
  bool rank_stabilised = false;
  bool transposed = false;
  json ranks = json::object(); // by pattern
  json alphas = json::object();

  double rank_of(const std::string& module) const {
    return pattern_value(ranks, module, rank);
  }

  double scale_of(const std::string& module) const {
    const double r = rank_of(module);
    const double a = pattern_value(alphas, module, alpha);
    return a / (rank_stabilised ? std::sqrt(r) : r);
  }

  // PEFT's rule: a pattern is a module's name, or its end after a dot.
  static double pattern_value(
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
};

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

Config read_config(const fs::path& file) {
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
  Config found;
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

fs::path weights_of(const fs::path& folder) {
  fs::path file = folder / kAdapterWeights;
  if (fs::is_regular_file(folder / kPickledAdapterWeights) &&
      !fs::exists(file)) {
    throw InputError(fmt::format(
        "{}: has only {}; save the adapter as safetensors, with "
        "save_pretrained of a current PEFT",
        folder.string(),
        kPickledAdapterWeights));
  }
  if (!fs::is_regular_file(file)) {
    throw InputError(fmt::format(
        "{}: is not a LoRA adapter; expected a directory with {}",
        folder.string(),
        kAdapterWeights));
  }
  return file;
}

// True if config.json names, at any depth, an architecture of transformers that
// has Conv1D.
bool has_conv1d(const json& config) {
  constexpr std::string_view kTypes[] = {
      "gpt2",
      "openai-gpt",
      "imagegpt",
      "decision_transformer",
      "clvp",
      "clvp_decoder"};
  if (!config.is_structured()) {
    return false;
  }
  const auto type = config.find("model_type");
  if (config.is_object() && type != config.end() && type->is_string() &&
      std::ranges::find(kTypes, type->get_ref<const std::string&>()) !=
          std::end(kTypes)) {
    return true;
  }
  return std::ranges::any_of(config, has_conv1d);
}

// True for weights of Conv1D in those architectures; all others are of Linear.
bool is_conv1d(std::string_view tensor) {
  constexpr std::string_view kNames[] = {
      ".c_attn.weight", ".q_attn.weight", ".c_proj.weight", ".c_fc.weight"};
  return std::ranges::any_of(
      kNames, [&](std::string_view name) { return tensor.ends_with(name); });
}

} // namespace

LoraAdapter::LoraAdapter(const fs::path& folder)
    : weights_(weights_of(folder)) {
  const Config config = read_config(folder / kAdapterConfig);
  constexpr std::string_view kA = ".lora_A.weight";
  constexpr std::string_view kB = ".lora_B.weight";
  for (const TensorInfo& tensor : weights_.tensors()) {
    const std::string& name = tensor.name;
    if (!name.starts_with(kPrefix)) {
      throw InputError(fmt::format(
          "{}: tensor {} does not begin with {}",
          weights_.path().string(),
          quote(name),
          kPrefix));
    }
    if (!is_mergeable(tensor.dtype)) {
      throw InputError(fmt::format(
          "{}: tensor {} is {}, which cannot be merged",
          weights_.path().string(),
          quote(name),
          dtype_name(tensor.dtype)));
    }
    if (name.ends_with(kB)) {
      const std::string a =
          name.substr(0, name.size() - kB.size()) + std::string(kA);
      if (weights_.find(a) == nullptr) {
        throw InputError(fmt::format(
            "{}: tensor {} has no matching {}",
            weights_.path().string(),
            quote(name),
            quote(a)));
      }
      continue; // with its A
    }
    if (!name.ends_with(kA)) {
      if (name.find(".lora_") != std::string::npos) {
        throw InputError(fmt::format(
            "{}: tensor {} cannot be merged on the fly; merge the adapter into "
            "its model with PEFT first",
            weights_.path().string(),
            quote(name)));
      }
      replacements_.emplace(name.substr(kPrefix.size()), name);
      continue;
    }
    const std::string module =
        name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size());
    const std::string other = std::string(kPrefix) + module + std::string(kB);
    const TensorInfo* b = weights_.find(other);
    if (tensor.shape.size() > 2) {
      throw InputError(fmt::format(
          "{}: tensor {} updates a convolution; merge the adapter into its "
          "model with PEFT first",
          weights_.path().string(),
          quote(name)));
    }
    if (b == nullptr || b->shape.size() != 2 || tensor.shape.size() != 2 ||
        b->shape[1] != tensor.shape[0]) {
      throw InputError(fmt::format(
          "{}: tensor {} has no matching {}",
          weights_.path().string(),
          quote(name),
          quote(other)));
    }
    if (config.rank_of(module) != static_cast<double>(tensor.shape[0]) ||
        tensor.shape[0] == 0) {
      throw InputError(fmt::format(
          "{}: tensor {} has rank {}, but {} says {}",
          weights_.path().string(),
          quote(name),
          tensor.shape[0],
          kAdapterConfig,
          config.rank_of(module)));
    }
    updates_.emplace(
        module + ".weight",
        LoraUpdate{
            .a = weights_.at(name),
            .b = weights_.at(other),
            .scale = config.scale_of(module),
            .transposed = config.transposed});
  }
}

// PEFT decides by the module which weights are stored as (in, out); its
// fan_in_fan_out in the file is that of the last module. Here the shapes
// decide, or, for square weights, the names in the architectures that have
// Conv1D; elsewhere fan_in_fan_out, unless a shape contradicts it.
void LoraAdapter::orient(
    const std::function<const TensorInfo*(const std::string&)>& weight_of,
    std::string_view model_config) {
  const bool conv1d = has_conv1d(parse_json_or_discard(model_config));
  std::vector<std::string> undecided;
  bool contradicted = false;
  for (auto& [name, update] : updates_) {
    const TensorInfo* weight = weight_of(name);
    const bool fan_in_fan_out = update.transposed;
    const int64_t in = update.a.info().shape[1];
    const int64_t out = update.b.info().shape[0];
    if (weight == nullptr) {
      continue; // the plan refuses it
    }
    if (in == out && conv1d) {
      update.transposed = is_conv1d(name);
    } else if (in == out) {
      undecided.push_back(quote(name));
    } else if (weight->shape == std::vector{in, out}) {
      update.transposed = true;
    } else if (weight->shape == std::vector{out, in}) {
      update.transposed = false;
    }
    contradicted |= in != out && update.transposed != fan_in_fan_out;
  }
  if (contradicted && !undecided.empty()) {
    std::ranges::sort(undecided);
    throw InputError(fmt::format(
        "{}: updates Linear and Conv1D modules, and the shapes do not tell "
        "which of them these are; merge the adapter into its model with PEFT "
        "first: {}",
        weights_.path().string(),
        list_some(undecided)));
  }
}

const LoraUpdate* LoraAdapter::find(const std::string& tensor) const {
  const auto found = updates_.find(tensor);
  return found == updates_.end() ? nullptr : &found->second;
}

std::optional<StoredTensor> LoraAdapter::replacement(
    const std::string& tensor) const {
  const auto found = replacements_.find(tensor);
  return found == replacements_.end()
      ? std::nullopt
      : std::optional(weights_.at(found->second));
}

std::vector<std::string> LoraAdapter::tensors() const {
  std::vector<std::string> names;
  for (const auto& [name, update] : updates_) {
    names.push_back(name);
  }
  for (const auto& [name, stored] : replacements_) {
    names.push_back(name);
  }
  return names;
}

} // namespace merganser
