#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace merganser {

// Reads a JSON file; throws InputError naming it.
nlohmann::json read_json(const std::filesystem::path& path);

// The configuration that transformers stores next to a vocabulary: the content
// of tokenizer_config.json; if that lists no added tokens, with the special
// tokens of special_tokens_map.json and the tokens of added_tokens.json. An
// empty object if none of these files exists.
nlohmann::json read_tokenizer_config(const std::filesystem::path& folder);

// The text of a special token such as "pad_token", which may be a string or an
// object with flags; `fallback` if the config lacks it.
std::string special_token(
    const nlohmann::json& config,
    const std::string& key,
    const std::string& fallback);

// False where "model_input_names" leaves token_type_ids out.
bool has_token_types(const nlohmann::json& config);

} // namespace merganser
