#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/text/tokenizer_json_parts.h"

namespace merganser::tokenizer_json {
namespace {

SpecialTokens read_template(const json& processor) {
  SpecialTokens tokens;
  int texts = 0;
  for (const json& piece : processor.at("single")) {
    if (piece.contains("Sequence")) {
      ++texts;
      continue;
    }
    const std::string name = piece.at("SpecialToken").at("id");
    for (const json& id : processor.at("special_tokens").at(name).at("ids")) {
      (texts == 0 ? tokens.before : tokens.after).push_back(read_id(id, name));
    }
  }
  if (texts != 1) {
    throw InputError(fmt::format(
        "the template of a single text contains the text {} times, expected "
        "once",
        texts));
  }
  return tokens;
}

int32_t read_named_id(const json& token) {
  return read_id(token.at(1), token.at(0).get<std::string>());
}

} // namespace

SpecialTokens read_post_processor(const json& processor) {
  const std::string type = type_of(processor);
  if (type == "null" || type == "ByteLevel") { // only trims offsets
    return {};
  }
  if (type == "TemplateProcessing") {
    return read_template(processor);
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {
        {read_named_id(processor.at("cls"))},
        {read_named_id(processor.at("sep"))}};
  }
  refuse(
      "post_processor",
      type,
      "use TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel");
}

} // namespace merganser::tokenizer_json
