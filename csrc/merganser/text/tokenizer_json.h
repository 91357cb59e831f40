#pragma once

#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <string>
#include <vector>

#include "merganser/text/added_tokens.h"
#include "merganser/text/post_processor.h"
#include "merganser/text/subword_model.h"

namespace merganser {

// The content of a tokenizer.json.
struct TokenizerParts {
  std::unique_ptr<SubwordModel> model;
  std::vector<AddedToken> added;
  PostProcessor templates;
  bool has_token_types = true; // a model gets the types of a pair
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
