#pragma once

#include <filesystem>
#include <memory>

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"
#include "merganser/text/tokenizer.h"

namespace merganser {

// A fine-tuned model with its tokenizer.
class MERGANSER_API Classifier {
 public:
  // Throws InputError when the directory has no classification head (a newly
  // initialized one would only give noise) or a tensor that is not finite.
  explicit Classifier(const std::filesystem::path& folder);

  // Throws InputError when max_length exceeds the model's maximum.
  Dataset load(
      const std::filesystem::path& file,
      int64_t max_length,
      Labels labels = Labels::kRequired) const;

  Encoder encoder;
  std::unique_ptr<Tokenizer> tokenizer;

 private:
  std::filesystem::path folder_;
};

// Reads a data file for a model of this configuration: labels may be its label
// names.
// Throws InputError for token types that the model lacks.
MERGANSER_API Dataset load_data(
    const std::filesystem::path& file,
    const Tokenizer& tokenizer,
    const EncoderConfig& config,
    int64_t max_length,
    Labels labels = Labels::kRequired);

// Throws InputError when the tokenizer has more ids than the model has rows: it
// belongs to a different model.
MERGANSER_API void check_vocabulary(
    const Tokenizer& tokenizer,
    const EncoderConfig& config,
    const std::filesystem::path& folder);

} // namespace merganser
