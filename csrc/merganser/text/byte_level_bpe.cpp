#include "merganser/text/byte_level_bpe.h"

#include <atomic>
#include <queue>
#include <tuple>

#include "merganser/text/byte_level.h"
#include "merganser/text/unicode.h"

namespace merganser {
namespace {

constexpr size_t kCachedWords = 1 << 16;
constexpr size_t kCachedWordBytes = 64; // longer words rarely repeat

// A pair of adjacent tokens that can be joined. Several may be queued for one
// place; outdated ones are detected by their id.
struct Candidate {
  uint32_t rank;
  size_t left;
  int32_t id; // the joined token

  bool operator>(const Candidate& other) const {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

using Candidates =
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

// A token of a word, linked to the adjacent ones.
struct Symbol {
  int32_t id;
  size_t previous;
  size_t next;
  bool joined = false; // into its left neighbour
};
constexpr size_t kNone = ~size_t{0};

// Joins in the order of the `tokenizers` package: by rank, then from the left;
// a queued candidate is valid as long as its place still joins to the same
// token.
std::vector<int32_t> join(
    const std::vector<int32_t>& ids,
    const MergeTable& merges) {
  std::vector<Symbol> word(ids.size());
  Candidates candidates;
  const auto consider = [&](size_t left) {
    const MergeTable::Merge* merge =
        merges.find(word[left].id, word[word[left].next].id);
    if (merge) {
      candidates.push({merge->rank, left, merge->id});
    }
  };
  for (size_t i = 0; i < word.size(); ++i) {
    word[i] = {ids[i], i == 0 ? kNone : i - 1, i + 1};
  }
  for (size_t i = 0; i + 1 < word.size(); ++i) {
    consider(i);
  }
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol& left = word[best.left];
    if (left.joined || left.next == word.size()) {
      continue;
    }
    Symbol& right = word[left.next];
    const MergeTable::Merge* merge = merges.find(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) {
      continue;
    }
    left.id = best.id;
    left.next = right.next;
    right.joined = true;
    if (left.next < word.size()) {
      word[left.next].previous = best.left;
    }
    if (left.previous != kNone) {
      consider(left.previous);
    }
    if (left.next < word.size()) {
      consider(best.left);
    }
  }
  std::vector<int32_t> joined;
  for (const Symbol& symbol : word) {
    if (!symbol.joined) {
      joined.push_back(symbol.id);
    }
  }
  return joined;
}

// The words of the model that a thread used last.
struct WordCache {
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const {
      return std::hash<std::string_view>{}(word);
    }
  };
  uint64_t serial = 0;
  std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>>
      words;
};

} // namespace

ByteLevelBpe::ByteLevelBpe(
    const Vocabulary& vocabulary,
    MergeTable merges,
    Options options)
    : merges_(std::move(merges)), options_(options) {
  static std::atomic<uint64_t> next_serial = 1;
  serial_ = next_serial++;
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = vocabulary.find(byte_characters()[byte]);
  }
}

std::string_view ByteLevelBpe::normalize(std::string_view text, std::string&)
    const {
  return text;
}

void ByteLevelBpe::encode(
    std::string_view text,
    size_t limit,
    std::vector<int32_t>& ids) const {
  std::string spaced;
  if (options_.add_prefix_space && !text.starts_with(' ')) {
    spaced = ' ';
    spaced += text;
    text = spaced;
  }
  thread_local WordCache cache;
  if (cache.serial != serial_ || cache.words.size() > kCachedWords) {
    cache.words.clear();
    cache.serial = serial_;
  }
  while (!text.empty() && ids.size() < limit) {
    const std::string_view word = text.substr(0, byte_level_word(text));
    text.remove_prefix(word.size());
    if (word.size() > kCachedWordBytes) {
      const std::vector<int32_t> found = encode_word(word);
      ids.insert(ids.end(), found.begin(), found.end());
      continue;
    }
    auto found = cache.words.find(word);
    if (found == cache.words.end()) {
      found = cache.words.emplace(word, encode_word(word)).first;
    }
    ids.insert(ids.end(), found->second.begin(), found->second.end());
  }
}

std::vector<int32_t> ByteLevelBpe::encode_word(std::string_view word) const {
  std::vector<int32_t> ids;
  bool after_unknown = false;
  for (const char c : word) {
    const std::optional<int32_t> id = byte_ids_[static_cast<unsigned char>(c)];
    if (id) {
      ids.push_back(*id);
    } else if (
        options_.unknown_id && !(after_unknown && options_.fuse_unknown)) {
      ids.push_back(*options_.unknown_id);
    }
    after_unknown = !id;
  }
  return join(ids, merges_);
}

} // namespace merganser
