#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/text/tokenizer_json_parts.h"

namespace merganser::tokenizer_json {

std::vector<AddedToken> read_added_tokens(
    const json& tokens,
    const Vocabulary& vocabulary) {
  std::vector<AddedToken> added;
  Vocabulary ids;
  auto next = static_cast<int32_t>(vocabulary.size());
  for (const json& token : tokens) {
    AddedToken entry{token.at("content")};
    if (entry.content.empty()) {
      continue;
    }
    entry.id = read_id(token.at("id"), entry.content);
    entry.single_word = token.at("single_word");
    entry.lstrip = token.at("lstrip");
    entry.rstrip = token.at("rstrip");
    entry.normalized = token.at("normalized");
    std::optional<int32_t> id = ids.find(entry.content);
    if (!id) {
      id = vocabulary.find(entry.content);
    }
    const int32_t expected = id ? *id : next++;
    if (entry.id != expected) {
      throw InputError(fmt::format(
          "the added token {} has id {}, but the vocabulary implies {}",
          quote(entry.content),
          entry.id,
          expected));
    }
    if (ids.find(entry.content)) { // the last of equal tokens wins
      std::erase_if(added, [&](const AddedToken& other) {
        return other.content == entry.content;
      });
    }
    ids.add(entry.content, entry.id);
    added.push_back(std::move(entry));
  }
  return added;
}

} // namespace merganser::tokenizer_json
