#include "merganser/text/tokenizer_config.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/strict_json.h"
#include "merganser/io/atomic_file.h"

namespace merganser {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

json read_object(const fs::path& path) {
  json object = read_json(path);
  if (!object.is_object()) {
    throw InputError(fmt::format("{}: expected an object", path.string()));
  }
  return object;
}

bool is_special(const json& config, const std::string& content) {
  for (const auto& [key, value] : config.items()) {
    if (key.ends_with("_token") && special_token(config, key, "") == content) {
      return true;
    }
  }
  const json extra = config.value("additional_special_tokens", json::array());
  return std::find(extra.begin(), extra.end(), content) != extra.end();
}

// The tokens of added_tokens.json, which maps them to ids, in the form of
// tokenizer_config.json.
json listed_tokens(const json& ids, const json& config) {
  json tokens = json::object();
  for (const auto& [content, id] : ids.items()) {
    tokens[json_text(id)] = {
        {"content", content}, {"normalized", !is_special(config, content)}};
  }
  return tokens;
}

} // namespace

json read_json(const fs::path& path) {
  return parse_strict_json(read_file(path), path.string());
}

json read_tokenizer_config(const fs::path& folder) {
  json config = json::object();
  if (const fs::path file = folder / "tokenizer_config.json";
      fs::exists(file)) {
    config = read_object(file);
  }
  if (config.contains("added_tokens_decoder")) {
    return config;
  }
  if (const fs::path file = folder / "special_tokens_map.json";
      fs::exists(file)) {
    config.update(read_object(file));
  }
  if (const fs::path file = folder / "added_tokens.json"; fs::exists(file)) {
    config["added_tokens_decoder"] = listed_tokens(read_object(file), config);
  }
  return config;
}

std::string special_token(
    const json& config,
    const std::string& key,
    const std::string& fallback) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) {
    return fallback;
  }
  if (found->is_object()) {
    return found->value("content", fallback);
  }
  return found->is_string() ? found->get<std::string>() : fallback;
}

bool has_token_types(const json& config) {
  const auto names = config.find("model_input_names");
  return names == config.end() || !names->is_array() ||
      std::find(names->begin(), names->end(), "token_type_ids") != names->end();
}

} // namespace merganser
