#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "merganser/base/progress.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"

namespace merganser {

// Returns the result of `estimate` (estimate_fisher, estimate_gram) for a model
// directory on the examples of all files, with the model's hash.
template <typename Estimate, typename Options>
auto estimate_on_files(
    const std::filesystem::path& model,
    const std::vector<std::filesystem::path>& files,
    int64_t max_length,
    const Estimate& estimate,
    const Options& options,
    const ProgressCallback& progress) {
  Classifier classifier(model);
  Dataset examples;
  for (const std::filesystem::path& file : files) {
    append(examples, classifier.load(file, max_length));
  }
  auto result = estimate(
      classifier.encoder,
      examples,
      classifier.tokenizer->pad_id(),
      options,
      progress);
  result.model_hash = Checkpoint(model).content_hash();
  return result;
}

} // namespace merganser
