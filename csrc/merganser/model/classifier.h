#pragma once

#include <filesystem>
#include <memory>

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"
#include "merganser/text/tokenizer.h"

namespace merganser {

// A fine-tuned model directory, ready to be used on data.
class MERGANSER_API Classifier {
 public:
  // Throws InputError when the folder has no classification head: a fresh one
  // would only give noise.
  explicit Classifier(const std::filesystem::path& folder);

  // Throws InputError when max_length is more than the model can take.
  Dataset load(const std::filesystem::path& file, int64_t max_length) const;

  Encoder encoder{nullptr};
  std::unique_ptr<Tokenizer> tokenizer;

 private:
  std::filesystem::path folder_;
};

// Throws InputError when the tokenizer gives ids that the model has no row for:
// it is that of another model.
MERGANSER_API void check_vocabulary(
    const Tokenizer& tokenizer,
    const EncoderConfig& config,
    const std::filesystem::path& folder);

} // namespace merganser
