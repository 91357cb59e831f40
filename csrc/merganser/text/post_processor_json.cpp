#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/text/tokenizer_json_parts.h"

namespace merganser::tokenizer_json {
namespace {

int32_t read_type(const json& piece) {
  return read_id(piece.at("type_id"), "type_id");
}

// Pieces of a TemplateProcessing, in which the texts A and B stand once each.
Template read_template(
    const json& processor,
    const char* key,
    const std::vector<std::string>& texts) {
  Template pieces;
  std::vector<int> counts(texts.size());
  for (const json& piece : processor.at(key)) {
    if (piece.contains("Sequence")) {
      const json& sequence = piece.at("Sequence");
      const std::string id = sequence.at("id");
      const auto text = static_cast<int>(id[0] - 'A');
      if (text < 0 || text >= static_cast<int>(texts.size()) ||
          id.size() != 1) {
        throw InputError(fmt::format(
            "the template {} has the text {}, expected {}",
            quote(key),
            quote(id),
            fmt::join(texts, " and ")));
      }
      ++counts[text];
      pieces.push_back({text, {}, read_type(sequence)});
      continue;
    }
    const json& special = piece.at("SpecialToken");
    const std::string name = special.at("id");
    TemplatePiece tokens{TemplatePiece::kSpecial, {}, read_type(special)};
    for (const json& id : processor.at("special_tokens").at(name).at("ids")) {
      tokens.ids.push_back(read_id(id, name));
    }
    pieces.push_back(std::move(tokens));
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    if (counts[i] != 1) {
      throw InputError(fmt::format(
          "the template {} has the text {} {} times, expected once",
          quote(key),
          texts[i],
          counts[i]));
    }
  }
  return pieces;
}

// Adds no special tokens. The tokenizers package gives the second text the type
// 1 unless a post-processor gives it another.
PostProcessor plain() {
  return {{{0, {}, 0}}, {{0, {}, 0}, {1, {}, 1}}};
}

TemplatePiece read_named(const json& token, int32_t type) {
  return {
      TemplatePiece::kSpecial,
      {read_id(token.at(1), token.at(0).get<std::string>())},
      type};
}

// [CLS] A [SEP] B [SEP], with type 1 from B on.
PostProcessor bert(const json& processor) {
  const TemplatePiece cls = read_named(processor.at("cls"), 0);
  const TemplatePiece sep = read_named(processor.at("sep"), 0);
  const TemplatePiece last = read_named(processor.at("sep"), 1);
  return {{cls, {0, {}, 0}, sep}, {cls, {0, {}, 0}, sep, {1, {}, 1}, last}};
}

// <s> A </s></s> B </s>, all of type 0.
PostProcessor roberta(const json& processor) {
  const TemplatePiece cls = read_named(processor.at("cls"), 0);
  const TemplatePiece sep = read_named(processor.at("sep"), 0);
  return {{cls, {0, {}, 0}, sep}, {cls, {0, {}, 0}, sep, sep, {1, {}, 0}, sep}};
}

} // namespace

PostProcessor read_post_processor(const json& processor) {
  const std::string type = type_of(processor);
  if (type == "null" || type == "ByteLevel") { // which only trims offsets
    return plain();
  }
  if (type == "TemplateProcessing") {
    PostProcessor templates = {
        read_template(processor, "single", {"A"}),
        read_template(processor, "pair", {"A", "B"})};
    for (const TemplatePiece& piece : templates.single) {
      if (piece.type != 0) {
        refuse(
            "type_id of a single text",
            std::to_string(piece.type),
            "use 0 in the template \"single\"");
      }
    }
    return templates;
  }
  if (type == "BertProcessing") {
    return bert(processor);
  }
  if (type == "RobertaProcessing") {
    return roberta(processor);
  }
  refuse(
      "post_processor",
      type,
      "use TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel");
}

} // namespace merganser::tokenizer_json
