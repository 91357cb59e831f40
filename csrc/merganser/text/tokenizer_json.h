#pragma once

#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <string>
#include <vector>

#include "merganser/text/added_tokens.h"
#include "merganser/text/subword_model.h"

namespace merganser {

// The content of a tokenizer.json.
struct TokenizerParts {
  std::unique_ptr<SubwordModel> model;
  std::vector<AddedToken> added;
  std::vector<int32_t> before; // special tokens before the text's
  std::vector<int32_t> after; // and after them
  int32_t pad_id = 0;
  int64_t vocab_size = 0; // one more than the largest id
};

// Reads the content of a tokenizer.json. `pad_token` names the padding token;
// if it is empty, the file does. Throws InputError that begins with `source`
// and names the part that is not supported or invalid.
TokenizerParts parse_tokenizer(
    const nlohmann::json& tokenizer,
    const std::string& pad_token,
    const std::string& source);

} // namespace merganser
