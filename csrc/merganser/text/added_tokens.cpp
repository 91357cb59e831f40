#include "merganser/text/added_tokens.h"

#include <algorithm>

#include "merganser/base/utf8.h"
#include "merganser/text/unicode.h"

namespace merganser {
namespace {

size_t first_byte(const AddedToken& token) {
  return static_cast<unsigned char>(token.content.front());
}

bool begins_with(std::string_view text, unicode::Property property) {
  size_t at = 0;
  return !text.empty() &&
      unicode::properties()[next_code_point(text, at)] & property;
}

bool ends_with(std::string_view text, unicode::Property property) {
  size_t last = text.size();
  while (last > 0 && !begins_code_point(text[--last])) {
  }
  return begins_with(text.substr(last), property);
}

size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (begins_with(text.substr(at), unicode::kSpace)) {
    next_code_point(text, at);
  }
  return at;
}

} // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)) {
  std::sort(
      tokens_.begin(),
      tokens_.end(),
      [](const AddedToken& a, const AddedToken& b) {
        return first_byte(a) != first_byte(b)
            ? first_byte(a) < first_byte(b)
            : a.content.size() > b.content.size();
      });
  for (size_t byte = 0, begin = 0; byte < by_first_byte_.size(); ++byte) {
    size_t end = begin;
    while (end < tokens_.size() && first_byte(tokens_[end]) == byte) {
      ++end;
    }
    by_first_byte_[byte] = {begin, end};
    begin = end;
  }
}

const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  const auto [begin, end] =
      by_first_byte_[static_cast<unsigned char>(text.front())];
  for (size_t i = begin; i < end; ++i) {
    if (text.starts_with(tokens_[i].content)) {
      return &tokens_[i];
    }
  }
  return nullptr;
}

std::vector<AddedTokens::Piece> AddedTokens::split(
    std::string_view text) const {
  std::vector<Piece> pieces;
  size_t done = 0; // the text before it is in a piece
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = longest_at(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->content.size();
    at = end;
    const std::string_view before = text.substr(0, begin);
    const std::string_view after = text.substr(end);
    if (token->single_word &&
        (ends_with(before, unicode::kWordCharacter) ||
         begins_with(after, unicode::kWordCharacter))) {
      continue;
    }
    if (token->lstrip) {
      begin = std::max(unicode::trim_end(before).size(), done);
    }
    if (token->rstrip) {
      end += leading_space(after);
    }
    if (done < begin) {
      pieces.push_back({text.substr(done, begin - done)});
    }
    pieces.push_back({{}, token});
    done = end;
  }
  if (done < text.size()) {
    pieces.push_back({text.substr(done)});
  }
  return pieces;
}

} // namespace merganser
