#pragma once

#include <filesystem>
#include <memory>

#include "model/encoder.h"
#include "text/dataset.h"

namespace merganser {

// A model directory, ready to be used on data.
struct LoadedModel {
  explicit LoadedModel(const std::filesystem::path& folder)
      : encoder(load_encoder(folder, 0, 0).model),
        tokenizer(Tokenizer::load(folder)) {}

  Dataset load(const std::filesystem::path& file, int64_t max_length) const {
    return load_dataset(
        file, *tokenizer, max_length, encoder->config().num_labels);
  }

  Encoder encoder;
  std::unique_ptr<Tokenizer> tokenizer;
};

} // namespace merganser
