#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

// The files of an adapter's directory.
inline constexpr const char* kAdapterConfig = "adapter_config.json";
inline constexpr const char* kAdapterWeights = "adapter_model.safetensors";
inline constexpr const char* kPickledAdapterWeights = "adapter_model.bin";

// The update of a weight W (out, in) by an adapter: scale B A, with A (rank,
// in) and B (out, rank). `transposed`: W is stored as (in, out), as in GPT-2's
// Conv1D.
struct LoraUpdate {
  StoredTensor a;
  StoredTensor b;
  double scale = 1;
  bool transposed = false;
};

// A LoRA adapter as PEFT saves it: adapter_config.json and
// adapter_model.safetensors.
class MERGANSER_API LoraAdapter {
 public:
  // Throws InputError for other directories, and for adapters whose model is
  // not W + scale B A (DoRA, biases, PiSSA, ...).
  explicit LoraAdapter(const std::filesystem::path& folder);

  // Sets `transposed` of every update. `weight_of`: the tensor of that
  // name, or nullptr; `model_config`: the text of the model's config.json.
  // Throws InputError if these do not decide it.
  void orient(
      const std::function<const TensorInfo*(const std::string&)>& weight_of,
      std::string_view model_config);

  // The update of a tensor, by the model's name for it; nullptr: none.
  const LoraUpdate* find(const std::string& tensor) const;
  // The trained copy that replaces a tensor (modules_to_save).
  std::optional<StoredTensor> replacement(const std::string& tensor) const;

  const Checkpoint& checkpoint() const {
    return weights_;
  }
  // The model's tensors that it updates or replaces.
  std::vector<std::string> tensors() const;

 private:
  Checkpoint weights_;
  std::unordered_map<std::string, LoraUpdate> updates_;
  std::unordered_map<std::string, std::string> replacements_;
};

} // namespace merganser
