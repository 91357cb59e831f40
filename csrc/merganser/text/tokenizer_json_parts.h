#pragma once

#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/text/added_tokens.h"
#include "merganser/text/post_processor.h"
#include "merganser/text/subword_model.h"
#include "merganser/text/vocabulary.h"

// Read the parts of a tokenizer.json, each in a file of its own. All throw
// InputError that names the unsupported or invalid part, without the file's
// name, or nlohmann's exceptions for a missing value or one of another type.
namespace merganser::tokenizer_json {

using nlohmann::json;

std::unique_ptr<SubwordModel> read_wordpiece(
    const json& tokenizer,
    const Vocabulary& vocabulary);

std::unique_ptr<SubwordModel> read_byte_level_bpe(
    const json& tokenizer,
    const Vocabulary& vocabulary);

// The id of an added token is that of the model's vocabulary; tokens that the
// vocabulary lacks are numbered from its size, in file order. Throws if the
// file has other ids.
std::vector<AddedToken> read_added_tokens(
    const json& tokens,
    const Vocabulary& vocabulary);

PostProcessor read_post_processor(const json& processor);

// The value of an optional key; null if absent.
const json& get(const json& object, const char* key);

// The "type" of a part, as in messages.
std::string type_of(const json& part);

// Throws "normalizer 'NFKC' is not supported; <advice>".
[[noreturn]] void refuse(
    std::string_view part,
    std::string_view type,
    std::string_view advice);

int32_t read_id(const json& value, std::string_view token);
int32_t find_id(const Vocabulary& vocabulary, std::string_view token);

} // namespace merganser::tokenizer_json
