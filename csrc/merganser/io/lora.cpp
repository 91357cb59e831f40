#include "merganser/io/lora.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

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

Config read_config(const fs::path& file) {
  const json config = parse_sorted_json_or_discard(read_file(file));
  const auto refuse = [&](const std::string& what) {
    throw InputError(fmt::format("{}: {}", file.string(), what));
  };
  // Null means absent.
  const auto is = [&](const char* key, const json& value) {
    const auto given = config.find(key);
    return given != config.end() && !given->is_null() && *given == value;
  };
  if (!config.is_object() || !is("peft_type", "LORA")) {
    refuse("is not the configuration of a LoRA adapter");
  }
  for (const char* key : {"use_dora", "lora_bias", "use_qalora"}) {
    if (is(key, true)) {
      refuse(fmt::format(
          "has {}, but only plain LoRA adapters can be merged on the fly; "
          "merge it into its model with PEFT first",
          key));
    }
  }
  if (config.contains("bias") && !is("bias", "none")) {
    refuse("trains biases; merge it into its model with PEFT first");
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
  if (!fs::is_regular_file(file)) {
    throw InputError(fmt::format(
        "{}: is not a LoRA adapter; expected a directory with {}",
        folder.string(),
        kAdapterWeights));
  }
  return file;
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
