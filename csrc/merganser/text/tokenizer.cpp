#include "merganser/text/tokenizer.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/strict_json.h"
#include "merganser/base/utf8.h"
#include "merganser/text/tokenizer_config.h"
#include "merganser/text/tokenizer_json.h"
#include "merganser/text/vocabulary_files.h"

namespace merganser {
namespace {

using nlohmann::json;

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

// Tokens that a template leaves for text.
size_t room_for_text(const Template& pieces, int64_t max_length) {
  const size_t special = count_special(pieces);
  if (max_length <= static_cast<int64_t>(special)) {
    throw InputError(fmt::format(
        "max_length {} leaves no room for text next to {} special tokens",
        max_length,
        special));
  }
  return static_cast<size_t>(max_length) - special;
}

// Truncates the texts to `room` tokens in total: first the longer one, then
// both to half of the room each. The odd token goes to the longer one, or to
// the second if they are equally long.
void cut_longest_first(
    std::vector<int32_t>& first,
    std::vector<int32_t>& second,
    size_t room) {
  auto& longer = first.size() > second.size() ? first : second;
  auto& shorter = first.size() > second.size() ? second : first;
  if (longer.size() + shorter.size() <= room) {
    return;
  }
  shorter.resize(std::min(shorter.size(), room / 2));
  longer.resize(std::min(longer.size(), room - shorter.size()));
}

class HuggingFaceTokenizer : public Tokenizer {
 public:
  explicit HuggingFaceTokenizer(TokenizerParts parts)
      : parts_(std::move(parts)),
        raw_(tokens_of(parts_, false)),
        normalized_(tokens_of(parts_, true)) {}

  std::vector<int32_t> encode(std::string_view text, int64_t max_length)
      const override;
  Encoding encode_pair(
      std::string_view text,
      std::string_view pair,
      int64_t max_length) const override;

  int64_t vocab_size() const override {
    return parts_.vocab_size;
  }
  int32_t pad_id() const override {
    return parts_.pad_id;
  }

 private:
  static AddedTokens tokens_of(const TokenizerParts& parts, bool normalized);
  std::vector<int32_t> encode_text(std::string_view text, size_t limit) const;
  void encode_between(
      std::string_view text,
      size_t limit,
      std::vector<int32_t>& ids) const;

  TokenizerParts parts_;
  AddedTokens raw_; // searched for in the original text
  AddedTokens normalized_; // searched for in the normalized rest
};

AddedTokens HuggingFaceTokenizer::tokens_of(
    const TokenizerParts& parts,
    bool normalized) {
  std::vector<AddedToken> tokens;
  std::string buffer;
  for (AddedToken token : parts.added) {
    if (token.normalized != normalized) {
      continue;
    }
    if (normalized) {
      token.content =
          std::string(parts.model->normalize(token.content, buffer));
    }
    if (!token.content.empty()) {
      tokens.push_back(std::move(token));
    }
  }
  return AddedTokens(std::move(tokens));
}

void HuggingFaceTokenizer::encode_between(
    std::string_view text,
    size_t limit,
    std::vector<int32_t>& ids) const {
  std::string buffer;
  for (const auto& piece :
       normalized_.split(parts_.model->normalize(text, buffer))) {
    if (ids.size() >= limit) {
      return;
    }
    if (piece.token) {
      ids.push_back(piece.token->id);
    } else {
      parts_.model->encode(piece.text, limit, ids);
    }
  }
}

std::vector<int32_t> HuggingFaceTokenizer::encode(
    std::string_view text,
    int64_t max_length) const {
  const Template& pieces = parts_.templates.single;
  const size_t room = room_for_text(pieces, max_length);
  return assemble(pieces, {encode_text(text, room)}).ids;
}

Encoding HuggingFaceTokenizer::encode_pair(
    std::string_view text,
    std::string_view pair,
    int64_t max_length) const {
  const Template& pieces = parts_.templates.pair;
  const size_t room = room_for_text(pieces, max_length);
  // Encodes both without a limit: their lengths decide how they are cut.
  std::vector<std::vector<int32_t>> texts = {
      encode_text(text, kUnlimited), encode_text(pair, kUnlimited)};
  cut_longest_first(texts[0], texts[1], room);
  Encoding encoding = assemble(pieces, texts);
  if (!parts_.has_token_types) {
    encoding.token_types.clear();
  }
  return encoding;
}

std::vector<int32_t> HuggingFaceTokenizer::encode_text(
    std::string_view text,
    size_t limit) const {
  if (const std::optional<size_t> at = find_ill_formed_utf8(text)) {
    throw InputError(
        fmt::format("the text is not valid UTF-8 at byte {}", *at));
  }
  std::vector<int32_t> ids;
  for (const auto& piece : raw_.split(text)) {
    if (ids.size() >= limit) {
      break;
    }
    if (piece.token) {
      ids.push_back(piece.token->id);
    } else {
      encode_between(piece.text, limit, ids);
    }
  }
  ids.resize(std::min(ids.size(), limit));
  return ids;
}

} // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(
    const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  try {
    const json config = read_tokenizer_config(folder);
    const bool whole = std::filesystem::exists(file);
    TokenizerParts parts = parse_tokenizer(
        whole ? read_json(file) : tokenizer_json_of_vocabulary(folder, config),
        special_token(config, "pad_token", ""),
        whole ? file.string() : folder.string());
    parts.has_token_types = has_token_types(config);
    return std::make_unique<HuggingFaceTokenizer>(std::move(parts));
  } catch (const json::exception& error) {
    throw InputError(fmt::format(
        "{}: the tokenizer's files do not match: {}",
        folder.string(),
        json_reason(error.what())));
  }
}

} // namespace merganser
