#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>

namespace merganser {

// Converts a directory's vocab.txt (BertTokenizer) or vocab.json and merges.txt
// (RobertaTokenizer), with its tokenizer_config.json, to the tokenizer.json of
// transformers. Throws InputError naming the file.
nlohmann::json tokenizer_json_of_vocabulary(
    const std::filesystem::path& folder,
    const nlohmann::json& config);

} // namespace merganser
