#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

// The files of an adapter's folder.
inline constexpr const char* kAdapterConfig = "adapter_config.json";
inline constexpr const char* kAdapterWeights = "adapter_model.safetensors";

// What an adapter adds to a weight W (out, in): scale B A, with A (rank, in)
// and B (out, rank). `transposed`: W is kept as (in, out), as in GPT-2's
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
  // Throws InputError for a folder that is no such adapter, and for one of a
  // kind that is more than W + scale B A (DoRA, several ranks at a time).
  explicit LoraAdapter(const std::filesystem::path& folder);

  // Of a tensor of the model, by the model's name for it.
  const LoraUpdate* find(const std::string& tensor) const;
  // A tensor that was trained as a whole (modules_to_save).
  std::optional<StoredTensor> replacement(const std::string& tensor) const;

  const Checkpoint& checkpoint() const {
    return weights_;
  }
  // The model's tensors that it speaks of.
  std::vector<std::string> tensors() const;

 private:
  Checkpoint weights_;
  std::unordered_map<std::string, LoraUpdate> updates_;
  std::unordered_map<std::string, std::string> replacements_;
};

} // namespace merganser
