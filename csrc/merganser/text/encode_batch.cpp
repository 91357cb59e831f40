#include <algorithm>
#include <thread>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/text/tokenizer.h"

namespace merganser {
namespace {

constexpr int64_t kTextsPerTurn = 64;

// Calls encode(i) for 0 <= i < count.
template <typename Encode>
void for_each_text(int64_t count, int threads, const Encode& encode) {
  if (threads <= 0) {
    threads =
        static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  const int64_t turns = (count + kTextsPerTurn - 1) / kTextsPerTurn;
  parallel_for(threads, turns, [&](int64_t turn, int) {
    const int64_t end = std::min(count, (turn + 1) * kTextsPerTurn);
    for (int64_t i = turn * kTextsPerTurn; i < end; ++i) {
      encode(i);
    }
  });
}

} // namespace

std::vector<std::vector<int32_t>> encode_batch(
    const Tokenizer& tokenizer,
    const std::vector<std::string_view>& texts,
    int64_t max_length,
    int threads) {
  std::vector<std::vector<int32_t>> ids(texts.size());
  for_each_text(static_cast<int64_t>(texts.size()), threads, [&](int64_t i) {
    ids[i] = tokenizer.encode(texts[i], max_length);
  });
  return ids;
}

std::vector<Encoding> encode_pair_batch(
    const Tokenizer& tokenizer,
    const std::vector<std::string_view>& texts,
    const std::vector<std::string_view>& pairs,
    int64_t max_length,
    int threads) {
  if (texts.size() != pairs.size()) {
    throw InputError(fmt::format(
        "encode_pair_batch: expected a second text for each of {} texts, got "
        "{}",
        texts.size(),
        pairs.size()));
  }
  std::vector<Encoding> encodings(texts.size());
  for_each_text(static_cast<int64_t>(texts.size()), threads, [&](int64_t i) {
    encodings[i] = tokenizer.encode_pair(texts[i], pairs[i], max_length);
  });
  return encodings;
}

} // namespace merganser
