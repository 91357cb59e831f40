#include "merganser/ops/example_tokens.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <type_traits>

namespace merganser::ops {
namespace {

// Elements between two tests for a nonzero: most rows have one in the first
// chunk.
constexpr int64_t kChunk = 64;

// Min rows per thread.
constexpr int64_t kRowsPerTask = 256;

template <typename In>
bool is_zero(const In* row, int64_t width) {
  using Unsigned = std::conditional_t<
      sizeof(In) == 2,
      uint16_t,
      std::conditional_t<sizeof(In) == 4, uint32_t, uint64_t>>;
  typedef Unsigned Bits __attribute__((may_alias));
  const Bits* const bits = reinterpret_cast<const Bits*>(row);
  for (int64_t begin = 0; begin < width; begin += kChunk) {
    Unsigned any = 0;
    for (int64_t j = begin; j < std::min(begin + kChunk, width); ++j) {
      any |= bits[j];
    }
    if (static_cast<Unsigned>(any << 1) != 0) { // ignores the sign of -0
      return false;
    }
  }
  return true;
}

} // namespace

template <typename In>
ExampleTokens ExampleTokens::nonzero(
    const In* output,
    int64_t examples,
    int64_t tokens,
    int64_t width) {
  std::vector<uint8_t> taken(examples * tokens);
  at::parallel_for(
      0, examples * tokens, kRowsPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t l = begin; l < end; ++l) {
          taken[l] = !is_zero(output + l * width, width);
        }
      });
  ExampleTokens result;
  result.tokens_.reserve(examples * tokens);
  for (int64_t i = 0; i < examples; ++i) {
    for (int64_t l = i * tokens; l < (i + 1) * tokens; ++l) {
      if (taken[l]) {
        result.tokens_.push_back(l);
      }
    }
    const auto end = static_cast<int64_t>(result.tokens_.size());
    if (end > result.ends_.back()) {
      result.ends_.push_back(end);
    }
  }
  return result;
}

int64_t ExampleTokens::longest() const {
  int64_t longest = 0;
  for (int64_t i = 0; i < size(); ++i) {
    longest = std::max(longest, count(i));
  }
  return longest;
}

#define INSTANTIATE(In)                          \
  template ExampleTokens ExampleTokens::nonzero( \
      const In*, int64_t, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(c10::BFloat16)
INSTANTIATE(c10::Half)

} // namespace merganser::ops
