#include <algorithm>
#include <thread>

#include "merganser/base/parallel.h"
#include "merganser/text/tokenizer.h"

namespace merganser {
namespace {

constexpr int64_t kTextsPerTurn = 64;

} // namespace

std::vector<std::vector<int32_t>> encode_batch(
    const Tokenizer& tokenizer,
    const std::vector<std::string_view>& texts,
    int64_t max_length,
    int threads) {
  if (threads <= 0) {
    threads =
        static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  const auto count = static_cast<int64_t>(texts.size());
  std::vector<std::vector<int32_t>> ids(texts.size());
  const int64_t turns = (count + kTextsPerTurn - 1) / kTextsPerTurn;
  parallel_for(threads, turns, [&](int64_t turn, int) {
    const int64_t end = std::min(count, (turn + 1) * kTextsPerTurn);
    for (int64_t i = turn * kTextsPerTurn; i < end; ++i) {
      ids[i] = tokenizer.encode(texts[i], max_length);
    }
  });
  return ids;
}

} // namespace merganser
