#include "merganser/text/wordpiece.h"

#include <algorithm>

#include "merganser/base/utf8.h"
#include "merganser/text/unicode.h"

namespace merganser {

WordPiece::WordPiece(const Vocabulary& vocabulary, Options options)
    : options_(std::move(options)), beginnings_(vocabulary) {
  const std::string& prefix = options_.continuing_prefix;
  for (const auto& [token, id] : vocabulary) {
    longest_ = std::max(longest_, token.size());
    if (token.starts_with(prefix)) {
      rests_.add(token.substr(prefix.size()), id);
    }
  }
}

std::string_view WordPiece::normalize(
    std::string_view text,
    std::string& buffer) const {
  options_.normalizer.apply(text, buffer);
  return buffer;
}

void WordPiece::encode(
    std::string_view text,
    size_t limit,
    std::vector<int32_t>& ids) const {
  const std::vector<uint16_t>& properties = unicode::properties();
  size_t begin = 0; // start of the word
  const auto end_word = [&](size_t end) {
    if (end > begin) {
      encode_word(text.substr(begin, end - begin), ids);
    }
  };
  for (size_t at = 0; at < text.size() && ids.size() < limit;) {
    const size_t before = at;
    const unsigned property = properties[next_code_point(text, at)];
    if (property & (unicode::kSpace | unicode::kPunctuate)) {
      end_word(before);
      begin = before;
      if (property & unicode::kPunctuate) {
        end_word(at);
      }
      begin = at;
    }
  }
  if (ids.size() < limit) {
    end_word(text.size());
  }
}

void WordPiece::encode_word(std::string_view word, std::vector<int32_t>& ids)
    const {
  const size_t characters =
      std::count_if(word.begin(), word.end(), begins_code_point);
  const size_t before = ids.size();
  bool known = characters <= options_.max_characters;
  for (std::string_view rest = word; known && !rest.empty();) {
    const Vocabulary& tokens =
        rest.size() == word.size() ? beginnings_ : rests_;
    size_t length = std::min(rest.size(), longest_);
    std::optional<int32_t> id;
    while (length > 0 && !(id = tokens.find(rest.substr(0, length)))) {
      --length;
    }
    if (id) {
      ids.push_back(*id);
      rest.remove_prefix(length);
    }
    known = id.has_value();
  }
  if (!known) {
    ids.resize(before);
    ids.push_back(options_.unknown_id);
  }
}

} // namespace merganser
