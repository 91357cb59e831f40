#pragma once

#include <string>
#include <string_view>

namespace merganser {

// Names and meaning of the values in transformers' config.json.

// The first of the names that architectures have for one value, one activation
// function or one type of rotary embedding.
std::string common_key(const std::string& key);
std::string common_activation(const std::string& name);
std::string common_rope_type(const std::string& name);

bool is_activation_key(std::string_view key);
// True for a key that gives tensors their meaning; those of rotary embeddings,
// which do as well, are not in the list.
bool gives_tensors_meaning(std::string_view key);
// True for a key without influence on a merged model's function: about one
// training, one version of transformers or the outputs of a call. Those of the
// classes are compared by check_configs.
bool is_harmless_key(std::string_view key);
// True for an architecture that numbers positions from pad_token_id; for others
// it only marks the end of texts.
bool positions_from_padding(std::string_view model_type);

} // namespace merganser
