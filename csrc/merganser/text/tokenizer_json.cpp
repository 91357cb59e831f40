#include "merganser/text/tokenizer_json.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/strict_json.h"
#include "merganser/text/tokenizer_json_parts.h"

namespace merganser {
namespace {

using namespace tokenizer_json;

Vocabulary read_vocabulary(const json& tokens) {
  Vocabulary vocabulary;
  for (const auto& [token, id] : tokens.items()) {
    vocabulary.add(token, read_id(id, token));
  }
  return vocabulary;
}

// Old files do not name the model's type.
std::string model_type(const json& model) {
  return model.contains("type")  ? model.at("type").get<std::string>()
      : model.contains("merges") ? "BPE"
      : model.contains("max_input_chars_per_word") ? "WordPiece"
      : model.contains("unk_id")                   ? "Unigram"
                                                   : "without type";
}

// WordPiece or byte-level BPE; the vocabularies of other models have other
// forms.
using ReadModel =
    std::unique_ptr<SubwordModel> (*)(const json&, const Vocabulary&);
ReadModel find_model(const json& model) {
  const std::string type = model_type(model);
  if (type == "WordPiece") {
    return read_wordpiece;
  }
  if (type == "BPE") {
    return read_byte_level_bpe;
  }
  refuse("model", type, "use WordPiece or byte-level BPE");
}

std::optional<int32_t> find_token(
    const std::string& content,
    const Vocabulary& vocabulary,
    const std::vector<AddedToken>& added) {
  for (const AddedToken& token : added) {
    if (token.content == content) {
      return token.id;
    }
  }
  return vocabulary.find(content);
}

int32_t find_pad_id(
    const json& padding,
    const std::string& pad_token,
    const Vocabulary& vocabulary,
    const std::vector<AddedToken>& added) {
  if (pad_token.empty() && !padding.is_null()) {
    return read_id(padding.at("pad_id"), "padding");
  }
  std::vector<std::string> names = {"[PAD]", "<pad>"};
  if (!pad_token.empty()) {
    names = {pad_token};
  }
  for (const std::string& name : names) {
    if (const auto id = find_token(name, vocabulary, added)) {
      return *id;
    }
  }
  throw InputError(fmt::format(
      "the padding token {} is not in the vocabulary; name one as "
      "\"pad_token\" in tokenizer_config.json",
      fmt::join(names, " or ")));
}

TokenizerParts parse(const json& tokenizer, const std::string& pad_token) {
  const json& truncation = get(tokenizer, "truncation");
  if (!truncation.is_null() &&
      truncation.value("direction", "Right") != "Right") {
    refuse("truncation", "Left", "only the end of a long text is truncated");
  }
  const json& model = tokenizer.at("model");
  const ReadModel read_model = find_model(model);
  const Vocabulary vocabulary = read_vocabulary(model.at("vocab"));
  TokenizerParts parts;
  parts.model = read_model(tokenizer, vocabulary);
  parts.added = read_added_tokens(get(tokenizer, "added_tokens"), vocabulary);
  parts.templates = read_post_processor(get(tokenizer, "post_processor"));
  parts.pad_id = find_pad_id(
      get(tokenizer, "padding"), pad_token, vocabulary, parts.added);

  std::vector<int32_t> ids = {parts.pad_id};
  for (const auto& [token, id] : vocabulary) {
    ids.push_back(id);
  }
  for (const AddedToken& token : parts.added) {
    ids.push_back(token.id);
  }
  for (const Template& pieces :
       {parts.templates.single, parts.templates.pair}) {
    for (const TemplatePiece& piece : pieces) {
      ids.insert(ids.end(), piece.ids.begin(), piece.ids.end());
    }
  }
  parts.vocab_size = int64_t{*std::max_element(ids.begin(), ids.end())} + 1;
  return parts;
}

} // namespace

TokenizerParts parse_tokenizer(
    const json& tokenizer,
    const std::string& pad_token,
    const std::string& source) {
  try {
    return parse(tokenizer, pad_token);
  } catch (const json::exception& error) {
    throw InputError(fmt::format(
        "{}: is not in the format of the tokenizers package: {}",
        source,
        json_reason(error.what())));
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", source, error.what()));
  }
}

} // namespace merganser
