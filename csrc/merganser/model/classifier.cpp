#include "merganser/model/classifier.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "merganser/base/error.h"

namespace merganser {

Classifier::Classifier(const std::filesystem::path& folder) : folder_(folder) {
  LoadedEncoder loaded = load_encoder(folder, /*num_labels=*/0, /*seed=*/0);
  if (!loaded.fresh.empty()) {
    throw InputError(fmt::format(
        "{} has no classification head ({} not found); fine-tune it first "
        "(merganser train)",
        folder.string(),
        fmt::join(loaded.fresh, ", ")));
  }
  encoder = std::move(loaded.model);
  for (const auto& item : encoder->named_parameters()) {
    if (!item.value().isfinite().all().item<bool>()) {
      throw InputError(fmt::format(
          "{}: tensor {} has values that are not finite",
          folder.string(),
          item.key()));
    }
  }
  tokenizer = Tokenizer::load(folder);
  check_vocabulary(*tokenizer, encoder->config(), folder);
}

Dataset Classifier::load(
    const std::filesystem::path& file,
    int64_t max_length,
    Labels labels) const {
  const EncoderConfig& config = encoder->config();
  if (max_length > config.max_length()) {
    throw InputError(fmt::format(
        "max-length {} exceeds the maximum of {} tokens of {}",
        max_length,
        config.max_length(),
        folder_.string()));
  }
  return load_data(file, *tokenizer, config, max_length, labels);
}

Dataset load_data(
    const std::filesystem::path& file,
    const Tokenizer& tokenizer,
    const EncoderConfig& config,
    int64_t max_length,
    Labels labels) {
  Dataset data = load_dataset(
      file,
      tokenizer,
      max_length,
      config.num_labels,
      config.label_names,
      labels);
  for (const std::vector<int32_t>& types : data.token_types) {
    const auto largest = std::ranges::max_element(types);
    if (largest != types.end() && *largest >= config.type_vocab_size) {
      throw InputError(fmt::format(
          "{}: the tokenizer gives a second text the token type {}, but "
          "type_vocab_size in config.json is {}",
          file.string(),
          *largest,
          config.type_vocab_size));
    }
  }
  return data;
}

void check_vocabulary(
    const Tokenizer& tokenizer,
    const EncoderConfig& config,
    const std::filesystem::path& folder) {
  if (tokenizer.vocab_size() > config.vocab_size) {
    throw InputError(fmt::format(
        "{}: the tokenizer has {} tokens, but vocab_size in config.json is {}; "
        "the tokenizer files belong to another model",
        folder.string(),
        tokenizer.vocab_size(),
        config.vocab_size));
  }
}

} // namespace merganser
