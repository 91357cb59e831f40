#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// Class probabilities of a model on a test set, and the labels.
struct Predictions {
  std::string set;
  std::vector<float> probabilities; // (examples, classes)
  std::vector<int64_t> labels;

  size_t classes() const {
    return probabilities.size() / labels.size();
  }
};

// A .safetensors file: per set a float32 tensor (examples, classes) under its
// name and an int64 tensor `SET.labels`.
MERGANSER_API void save_predictions(
    const std::filesystem::path& file,
    const std::vector<Predictions>& sets);
MERGANSER_API std::vector<Predictions> load_predictions(
    const std::filesystem::path& file,
    const std::vector<std::string>& sets);

} // namespace merganser
