#include "merganser/text/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "merganser/base/error.h"

namespace merganser {

Dataset load_dataset(
    const std::filesystem::path& path,
    const Tokenizer& tokenizer,
    int64_t max_length,
    int64_t num_labels,
    const LabelNames& names,
    Labels labels) {
  const std::vector<TextExample> examples = read_examples(path, names, labels);
  Dataset data;
  data.path = path;
  for (const TextExample& example : examples) {
    if (example.label >= num_labels) {
      throw InputError(fmt::format(
          "{}:{}: label {} is out of range; the model has {} labels, from 0",
          path.string(),
          example.line,
          example.label,
          num_labels));
    }
    data.labels.push_back(example.label);
  }

  std::vector<std::string_view> texts;
  for (const TextExample& example : examples) {
    texts.push_back(example.text);
  }
  if (!examples.front().text_pair) {
    data.ids = encode_batch(tokenizer, texts, max_length);
    return data;
  }
  std::vector<std::string_view> pairs;
  for (const TextExample& example : examples) {
    pairs.push_back(*example.text_pair);
  }
  for (Encoding& encoding :
       encode_pair_batch(tokenizer, texts, pairs, max_length)) {
    data.ids.push_back(std::move(encoding.ids));
    data.token_types.push_back(std::move(encoding.token_types));
  }
  return data;
}

void append(Dataset& all, Dataset part) {
  if (!all.token_types.empty() || !part.token_types.empty()) {
    all.token_types.resize(all.ids.size());
    part.token_types.resize(part.ids.size());
    std::ranges::move(part.token_types, std::back_inserter(all.token_types));
  }
  std::move(part.ids.begin(), part.ids.end(), std::back_inserter(all.ids));
  all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
}

} // namespace merganser
