#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "merganser/numeric/simd.h"

namespace merganser::ops {

// fisher[c] += weight * sum_i (sum_l term(i, l, c))^2 for c in [begin, end):
// the squares of parameters that act on each channel separately (a bias, the
// weight of a LayerNorm). Each channel belongs to one thread and adds up in the
// order of examples and tokens: the bits do not depend on the number of
// threads.
template <typename T, typename Term>
void accumulate_token_sums(
    T* fisher,
    int64_t begin,
    int64_t end,
    int64_t examples,
    int64_t tokens,
    T weight,
    const Term& term) {
  std::vector<T> sums(end - begin);
  T* const s = sums.data();
  for (int64_t i = 0; i < examples; ++i) {
    widest([=, &term] {
      std::fill(s, s + (end - begin), T(0));
      for (int64_t l = 0; l < tokens; ++l) {
        for (int64_t c = begin; c < end; ++c) {
          s[c - begin] += term(i, l, c);
        }
      }
      for (int64_t c = begin; c < end; ++c) {
        fisher[c] += s[c - begin] * s[c - begin] * weight;
      }
    });
  }
}

// Min channels per thread: a cache line, and enough work to start a thread.
inline int64_t channel_grain(int64_t examples, int64_t tokens) {
  const int64_t rows = std::max<int64_t>(examples * tokens, 1);
  return std::max<int64_t>(16, 32768 / rows);
}

} // namespace merganser::ops
