#include "merganser/text/added_token_list.h"

namespace merganser {
namespace {

using nlohmann::json;

// In the order in which transformers adds those that a vocabulary lacks.
constexpr const char* kSpecialTokens[] = {
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token"};

} // namespace

AddedTokenList::AddedTokenList(
    const json& config,
    const json& vocabulary,
    const Defaults& defaults)
    : vocabulary_(vocabulary), next_(static_cast<int64_t>(vocabulary.size())) {
  std::map<int64_t, json> listed; // by id
  const json decoder = config.value("added_tokens_decoder", json::object());
  for (const auto& [id, token] : decoder.items()) {
    listed[std::strtoll(id.c_str(), nullptr, 10)] = token;
  }
  for (const auto& [id, token] : listed) {
    add(token, true);
  }
  for (const char* key : kSpecialTokens) {
    const auto fallback = defaults.find(key);
    const auto given = config.find(key);
    if (given != config.end() && !given->is_null()) {
      add(*given, false);
    } else if (fallback != defaults.end()) {
      add(fallback->second, false);
    }
  }
  for (const char* key :
       {"additional_special_tokens", "extra_special_tokens"}) {
    for (const json& token : config.value(key, json::array())) {
      add(token, false);
    }
  }
}

// `token` is a string or an object with flags. The first of equal ones holds.
void AddedTokenList::add(const json& token, bool normalized) {
  json entry = {
      {"single_word", false},
      {"lstrip", false},
      {"rstrip", false},
      {"normalized", normalized}};
  if (token.is_object()) {
    entry.update(token);
  } else {
    entry["content"] = token;
  }
  const std::string content = entry.at("content");
  if (ids_.contains(content)) {
    return;
  }
  const auto known = vocabulary_.find(content);
  ids_[content] = known != vocabulary_.end() ? *known : json(next_++);
  entry["id"] = ids_[content];
  tokens_.push_back(std::move(entry));
}

json AddedTokenList::named(const std::string& content) const {
  return {content, ids_.at(content)};
}

} // namespace merganser
