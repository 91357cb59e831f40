#include "merganser/io/lora.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/conv1d.h"
#include "merganser/io/lora_config.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.";

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
  const LoraConfig config = read_lora_config(folder / kAdapterConfig);
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
  const bool conv1d = has_conv1d(model_config);
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
