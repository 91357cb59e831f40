#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>

namespace merganser {

// The tokenizer.json that transformers would make of a folder's vocab.txt
// (BertTokenizer) or vocab.json and merges.txt (RobertaTokenizer), given the
// folder's tokenizer_config.json. Throws InputError naming the file.
nlohmann::json tokenizer_json_of_vocabulary(
    const std::filesystem::path& folder,
    const nlohmann::json& config);

} // namespace merganser
