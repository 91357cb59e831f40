// One tile of the weight matrix at a time: the product of each example's tokens
// goes into a buffer that stays in cache and is squared from there. The
// products are oneDNN's, through ATen: with AVX-512's bfloat16 instructions or,
// where there are, those for tiles (AMX).
//
// Compiled with FMA contraction, like square_products.cpp.

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <iterator>

#include "merganser/numeric/simd.h"
#include "merganser/ops/scratch.h"
#include "merganser/ops/square_products.h"

namespace merganser::ops {
namespace {

using at::native::cpublas::brgemm;
using at::native::cpublas::brgemm_release;

// Sides of a tile. Two products and the tile of the Fisher are 48 KiB.
constexpr int64_t kTile = 64;
static_assert(kBlockStep % kTile == 0);

// What the packed operands of one pass may take: a common second-level cache.
constexpr int64_t kPackBytes = 1024 * 1024;

// The numbers of two tokens in one column, side by side, as bits: what the
// instructions take at a time.
using Pair = uint32_t;
constexpr int64_t kLanes = 16;

int64_t round_up(int64_t count, int64_t step) {
  return (count + step - 1) / step * step;
}

// How many pairs take the place of some tokens: half, rounded up to a number
// with four binary digits before its zeros. For each number there is compiled
// code of a quarter of a megabyte, which ATen keeps.
int64_t pairs_of(int64_t tokens) {
  const auto pairs = static_cast<uint64_t>(tokens + 1) / 2;
  const int digits = std::bit_width(pairs);
  return round_up(
      static_cast<int64_t>(pairs), int64_t{1} << std::max(digits - 4, 0));
}

typedef Pair Lanes
    __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint16_t HalfLanes
    __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

// Columns [begin, end) of some tokens of a matrix (all tokens, width).
struct Operand {
  const c10::BFloat16* matrix;
  int64_t width;
  std::span<const int64_t> tokens;
  int64_t begin;
  int64_t end;

  // The k-th pairs of kLanes columns; zeros beyond the tokens and the columns.
  void load(int64_t k, int64_t column, Lanes& pairs) const {
    HalfLanes low = {};
    HalfLanes high = {};
    load_token(2 * k, column, low);
    load_token(2 * k + 1, column, high);
    pairs = __builtin_convertvector(low, Lanes) |
        __builtin_convertvector(high, Lanes) << 16;
  }

 private:
  void load_token(int64_t token, int64_t column, HalfLanes& numbers) const {
    if (token >= std::ssize(tokens)) {
      return;
    }
    const c10::BFloat16* const from = matrix + tokens[token] * width + column;
    if (column + kLanes <= end) {
      numbers = *reinterpret_cast<const HalfLanes*>(from);
    } else {
      for (int64_t j = 0; column + j < end; ++j) {
        numbers[j] = from[j].x;
      }
    }
  }
};

// packed (panel, pair, kTile). Token by token, as memory is read best.
void pack(const Operand& a, Pair* packed) {
  const int64_t pairs = pairs_of(std::ssize(a.tokens));
  for (int64_t k = 0; k < pairs; ++k, packed += kTile) {
    Pair* panel = packed;
    for (int64_t first = a.begin; first < a.end; first += kTile) {
      for (int64_t j = 0; j < kTile && first + j < a.end; j += kLanes) {
        a.load(k, first + j, *reinterpret_cast<Lanes*>(panel + j));
      }
      panel += pairs * kTile;
    }
  }
}

// One of the four rounds of a transposition: swaps kStep x kStep blocks.
template <int kStep>
void exchange(Lanes (&v)[kLanes]) {
  Lanes low;
  Lanes high;
  for (Pair j = 0; j < kLanes; ++j) {
    low[j] = j & kStep ? kLanes + j - kStep : j;
    high[j] = j & kStep ? kLanes + j : j + kStep;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kStep) == 0) {
      const Lanes first = v[i];
      v[i] = __builtin_shuffle(first, v[i + kStep], low);
      v[i + kStep] = __builtin_shuffle(first, v[i + kStep], high);
    }
  }
}

// packed (column, stride), stride a multiple of kLanes and columns rounded up
// to one.
void pack_transposed(const Operand& d, int64_t stride, Pair* packed) {
  for (int64_t k = 0; k < stride; k += kLanes) {
    Pair* block = packed + k;
    for (int64_t column = d.begin; column < d.end; column += kLanes) {
      Lanes v[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        d.load(k + i, column, v[i]);
      }
      exchange<1>(v);
      exchange<2>(v);
      exchange<4>(v);
      exchange<8>(v);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        *reinterpret_cast<Lanes*>(block) = v[i];
        block += stride;
      }
    }
  }
}

// product (rows, kTile) = d (rows, 2 * stride) times a (pairs, kTile, 2)
void multiply(
    const Pair* d,
    int64_t stride,
    const Pair* a,
    int64_t pairs,
    int64_t rows,
    int64_t columns,
    float* product) {
  brgemm(
      rows,
      columns,
      2 * pairs,
      2 * stride,
      kTile,
      kTile,
      /*add_C=*/false,
      reinterpret_cast<const c10::BFloat16*>(d),
      reinterpret_cast<const c10::BFloat16*>(a),
      product);
}

// brgemm has no predicate: it throws where oneDNN lacks it. What ATen asks for
// is AVX-512, with which oneDNN would only imitate bfloat16 products.
bool try_brgemm() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) {
    const Pair ones = 0x3f803f80;
    float product = 0;
    try {
      multiply(&ones, 1, &ones, 1, 1, 1, &product);
      brgemm_release();
    } catch (const std::exception&) {
    }
    return product == 2;
  }
#endif
  return false;
}

} // namespace

bool has_bf16_products() {
  if (!at::globalContext().userEnabledMkldnn()) {
    return false;
  }
  static const bool works = try_brgemm();
  return works;
}

void add_squares_bf16(
    const SquareProducts<float, c10::BFloat16>& products,
    const Block& block) {
  widest([&] {
    const auto& [fisher, input, output, examples, rows, columns, weight] =
        products;
    const int64_t d_width = round_up(block.row_end - block.row_begin, kTile);
    const int64_t a_width =
        round_up(block.column_end - block.column_begin, kTile);
    // Of the transposed operand, pairs beside each other: whole vectors.
    const auto stride_of = [](int64_t tokens) {
      return round_up(pairs_of(tokens), kLanes);
    };
    const auto size_of = [&](int64_t tokens) {
      return d_width * stride_of(tokens) + a_width * pairs_of(tokens);
    };
    const int64_t room = std::max<int64_t>(
        kPackBytes / sizeof(Pair), 2 * size_of(examples.longest()));
    Scratch<Pair> packed(room);
    alignas(64) float one[kTile * kTile];
    alignas(64) float other[kTile * kTile];
    for (int64_t first = 0, end = 0; first < examples.size(); first = end) {
      end = examples.group_end(first, 2, room, size_of);
      Pair* next = packed.data();
      for (int64_t i = first; i < end; ++i) {
        const int64_t stride = stride_of(examples.count(i));
        pack_transposed(
            {output, rows, examples[i], block.row_begin, block.row_end},
            stride,
            next);
        pack(
            {input, columns, examples[i], block.column_begin, block.column_end},
            next + d_width * stride);
        next += size_of(examples.count(i));
      }
      for (int64_t j = 0; j < a_width; j += kTile) {
        const int64_t column = block.column_begin + j;
        const int64_t tile_columns = std::min(kTile, block.column_end - column);
        for (int64_t o = 0; o < d_width; o += kTile) {
          const int64_t row = block.row_begin + o;
          const int64_t tile_rows = std::min(kTile, block.row_end - row);
          const Pair* d = packed.data();
          const auto multiply_next = [&](int64_t i, float* product) {
            const int64_t pairs = pairs_of(examples.count(i));
            const int64_t stride = stride_of(examples.count(i));
            multiply(
                d + o * stride,
                stride,
                d + d_width * stride + j * pairs,
                pairs,
                tile_rows,
                tile_columns,
                product);
            d += size_of(examples.count(i));
          };
          // The tile arrives while the first products are made.
          for (int64_t r = 0; r < tile_rows; ++r) {
            for (int64_t c = 0; c < tile_columns; c += kLanes) {
              __builtin_prefetch(
                  fisher + (row + r) * columns + column + c, /*rw=*/1);
            }
          }
          // Two examples at a time: half as many passes over the Fisher.
          for (int64_t i = first; i < end; i += 2) {
            multiply_next(i, one);
            if (i + 1 < end) {
              multiply_next(i + 1, other);
            } else {
              std::fill(other, other + kTile * kTile, 0.0F);
            }
            for (int64_t r = 0; r < tile_rows; ++r) {
              float* const f = fisher + (row + r) * columns + column;
              const float* const x = one + r * kTile;
              const float* const y = other + r * kTile;
              for (int64_t c = 0; c < tile_columns; ++c) {
                f[c] += (x[c] * x[c] + y[c] * y[c]) * weight;
              }
            }
          }
        }
      }
    }
    brgemm_release();
  });
}

} // namespace merganser::ops
