#pragma once

// Operands of bfloat16 products, packed in the layout of oneDNN's brgemm: the
// numbers of two tokens in one column form a pair, which the instructions take
// as one 32-bit element.

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <span>

namespace merganser::ops {

// Side of a tile of the Fisher. Two products and the tile take 48 KiB.
constexpr int64_t kBf16Tile = 64;

using Bf16Pair = uint32_t;
constexpr int64_t kPairLanes = 16;

inline int64_t round_up(int64_t count, int64_t step) {
  return (count + step - 1) / step * step;
}

// Number of pairs for a number of tokens: half, rounded up to a number with
// four binary digits before its zeros. ATen keeps compiled code of a quarter of
// a megabyte for each number.
inline int64_t pairs_of(int64_t tokens) {
  const auto pairs = static_cast<uint64_t>(tokens + 1) / 2;
  const int digits = std::bit_width(pairs);
  return round_up(
      static_cast<int64_t>(pairs), int64_t{1} << std::max(digits - 4, 0));
}

// Row length of a transposed operand, in pairs: whole vectors.
inline int64_t pair_stride_of(int64_t tokens) {
  return round_up(pairs_of(tokens), kPairLanes);
}

typedef Bf16Pair PairLanes
    __attribute__((vector_size(4 * kPairLanes), aligned(4), may_alias));
typedef uint16_t HalfLanes
    __attribute__((vector_size(2 * kPairLanes), aligned(2), may_alias));

// Columns [begin, end) of some tokens of a matrix (all tokens, width).
struct Bf16Operand {
  const c10::BFloat16* matrix;
  int64_t width;
  std::span<const int64_t> tokens;
  int64_t begin;
  int64_t end;

  // The k-th pairs of kPairLanes columns; zeros beyond the tokens and columns.
  void load(int64_t k, int64_t column, PairLanes& pairs) const {
    HalfLanes low = {};
    HalfLanes high = {};
    load_token(2 * k, column, low);
    load_token(2 * k + 1, column, high);
    pairs = __builtin_convertvector(low, PairLanes) |
        __builtin_convertvector(high, PairLanes) << 16;
  }

 private:
  void load_token(int64_t token, int64_t column, HalfLanes& numbers) const {
    if (token >= std::ssize(tokens)) {
      return;
    }
    const c10::BFloat16* const from = matrix + tokens[token] * width + column;
    if (column + kPairLanes <= end) {
      numbers = *reinterpret_cast<const HalfLanes*>(from);
    } else {
      for (int64_t j = 0; column + j < end; ++j) {
        numbers[j] = from[j].x;
      }
    }
  }
};

// Packs (panel, pair, kBf16Tile), token by token: memory is read in order.
inline void pack(const Bf16Operand& a, Bf16Pair* packed) {
  const int64_t pairs = pairs_of(std::ssize(a.tokens));
  for (int64_t k = 0; k < pairs; ++k, packed += kBf16Tile) {
    Bf16Pair* panel = packed;
    for (int64_t first = a.begin; first < a.end; first += kBf16Tile) {
      for (int64_t j = 0; j < kBf16Tile && first + j < a.end; j += kPairLanes) {
        a.load(k, first + j, *reinterpret_cast<PairLanes*>(panel + j));
      }
      panel += pairs * kBf16Tile;
    }
  }
}

// One of four rounds of a transposition: swaps kStep x kStep blocks.
template <int kStep>
void exchange(PairLanes (&v)[kPairLanes]) {
  PairLanes low;
  PairLanes high;
  for (Bf16Pair j = 0; j < kPairLanes; ++j) {
    low[j] = j & kStep ? kPairLanes + j - kStep : j;
    high[j] = j & kStep ? kPairLanes + j : j + kStep;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPairLanes; ++i) {
    if ((i & kStep) == 0) {
      const PairLanes first = v[i];
      v[i] = __builtin_shuffle(first, v[i + kStep], low);
      v[i + kStep] = __builtin_shuffle(first, v[i + kStep], high);
    }
  }
}

// Packs (column, stride): stride is a multiple of kPairLanes, the number of
// columns is rounded up to one.
inline void pack_transposed(
    const Bf16Operand& d,
    int64_t stride,
    Bf16Pair* packed) {
  for (int64_t k = 0; k < stride; k += kPairLanes) {
    Bf16Pair* block = packed + k;
    for (int64_t column = d.begin; column < d.end; column += kPairLanes) {
      PairLanes v[kPairLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; ++i) {
        d.load(k + i, column, v[i]);
      }
      exchange<1>(v);
      exchange<2>(v);
      exchange<4>(v);
      exchange<8>(v);
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; ++i) {
        *reinterpret_cast<PairLanes*>(block) = v[i];
        block += stride;
      }
    }
  }
}

} // namespace merganser::ops
