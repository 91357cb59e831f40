#include <nlohmann/json.hpp>

#include "merganser/text/tokenizer_json_parts.h"
#include "merganser/text/wordpiece.h"

namespace merganser::tokenizer_json {
namespace {

BertNormalizer read_normalizer(const json& normalizer) {
  if (normalizer.is_null()) {
    return {false, false, false, false};
  }
  if (type_of(normalizer) != "BertNormalizer") {
    refuse(
        "normalizer", type_of(normalizer), "with WordPiece use BertNormalizer");
  }
  const bool lowercase = normalizer.at("lowercase");
  const json& strip = get(normalizer, "strip_accents");
  return {
      normalizer.at("clean_text"),
      normalizer.at("handle_chinese_chars"),
      strip.is_null() ? lowercase : strip.get<bool>(),
      lowercase};
}

} // namespace

std::unique_ptr<SubwordModel> read_wordpiece(
    const json& tokenizer,
    const Vocabulary& vocabulary) {
  const json& words = get(tokenizer, "pre_tokenizer");
  if (type_of(words) != "BertPreTokenizer") {
    refuse(
        "pre_tokenizer", type_of(words), "with WordPiece use BertPreTokenizer");
  }
  const json& model = tokenizer.at("model");
  return std::make_unique<WordPiece>(
      vocabulary,
      WordPiece::Options{
          read_normalizer(get(tokenizer, "normalizer")),
          find_id(vocabulary, model.at("unk_token").get<std::string>()),
          model.at("continuing_subword_prefix"),
          model.at("max_input_chars_per_word")});
}

} // namespace merganser::tokenizer_json
