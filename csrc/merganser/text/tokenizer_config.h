#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace merganser {

// A JSON file; throws InputError naming it when it cannot be read.
nlohmann::json read_json(const std::filesystem::path& path);

// What transformers keeps beside a vocabulary: the content of
// tokenizer_config.json, with the special tokens of special_tokens_map.json and
// the tokens of added_tokens.json where it does not list added tokens itself.
// An empty object where there is none of them.
nlohmann::json read_tokenizer_config(const std::filesystem::path& folder);

// The text of a special token such as "pad_token", which may be a string or an
// object with flags; `fallback` where the config has none.
std::string special_token(
    const nlohmann::json& config,
    const std::string& key,
    const std::string& fallback);

// False where "model_input_names" leaves token_type_ids out.
bool has_token_types(const nlohmann::json& config);

} // namespace merganser
