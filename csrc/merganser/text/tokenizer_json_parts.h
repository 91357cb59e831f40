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

// The parts of a tokenizer.json, each in a file of its own. All throw
// InputError that names what is not supported or makes no sense, without the
// file's name, or nlohmann's exceptions where a value has another type or is
// missing.
namespace merganser::tokenizer_json {

using nlohmann::json;

std::unique_ptr<SubwordModel> read_wordpiece(
    const json& tokenizer,
    const Vocabulary& vocabulary);

std::unique_ptr<SubwordModel> read_byte_level_bpe(
    const json& tokenizer,
    const Vocabulary& vocabulary);

// An added token has the id that the model's vocabulary gives it; the others
// are counted on from the vocabulary's size, in file order. The file must say
// the same.
std::vector<AddedToken> read_added_tokens(
    const json& tokens,
    const Vocabulary& vocabulary);

PostProcessor read_post_processor(const json& processor);

// The value of a key that may be absent, which means the same as null.
const json& get(const json& object, const char* key);

// The "type" of a part, for messages too.
std::string type_of(const json& part);

// "normalizer 'NFKC' is not supported; <advice>"
[[noreturn]] void refuse(
    std::string_view part,
    std::string_view type,
    std::string_view advice);

int32_t read_id(const json& value, std::string_view token);
int32_t find_id(const Vocabulary& vocabulary, std::string_view token);

} // namespace merganser::tokenizer_json
