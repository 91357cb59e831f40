// One tile of the weight matrix at a time: kRows rows by two vectors of
// columns, whose products over an example's tokens add up in registers and are
// squared there, without being written to memory. The operands of a tile are
// packed in the order of its reads, once per example.
//
// Compiled with FMA contraction, unlike the rest: the bits of sums of products
// may differ between machines, and without it they take twice the time.

#include "merganser/ops/square_products.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>

#include "merganser/numeric/simd.h"
#include "merganser/ops/scratch.h"

namespace merganser::ops {
namespace {

// Size of the packed operands of one pass: half of a common second-level cache.
constexpr int64_t kPackBytes = 512 * 1024;

template <typename T, int kBytes>
struct Tile {
  // 12 x 2 sums fill 24 of AVX-512's 32 registers, 6 x 2 sums fill 12 of the
  // other instruction sets' 16; two hold the columns and one the row.
  static constexpr int kRows = kBytes == 64 ? 12 : 6;
  static constexpr int kLanes = kBytes / sizeof(T);
  static constexpr int kColumns = 2 * kLanes;
  typedef T Vector
      __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));

  // fisher += weight * (d^T a)^2 with d (tokens, kRows), a (tokens, kColumns);
  // only `rows` x `columns` of the tile exist.
  static void accumulate(
      const T* d,
      const T* a,
      int64_t tokens,
      T weight,
      T* fisher,
      int64_t stride,
      int64_t rows,
      int64_t columns) {
    Vector sums[kRows][2] = {};
    for (int64_t l = 0; l < tokens; ++l, d += kRows, a += kColumns) {
      const Vector a0 = *reinterpret_cast<const Vector*>(a);
      const Vector a1 = *reinterpret_cast<const Vector*>(a + kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        sums[r][0] += d[r] * a0;
        sums[r][1] += d[r] * a1;
      }
    }
    if (rows == kRows && columns == kColumns) {
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        Vector* const f = reinterpret_cast<Vector*>(fisher + r * stride);
        f[0] += sums[r][0] * sums[r][0] * weight;
        f[1] += sums[r][1] * sums[r][1] * weight;
      }
    } else {
      T tile[kRows][kColumns];
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        Vector* const t = reinterpret_cast<Vector*>(tile[r]);
        t[0] = sums[r][0];
        t[1] = sums[r][1];
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          fisher[r * stride + c] += tile[r][c] * tile[r][c] * weight;
        }
      }
    }
  }
};

// Packs columns [begin, end) of some tokens of a matrix (all tokens, width)
// into panels (panel, token, kWidth), padded with zeros. Token by token: memory
// is read in order.
template <int kWidth, typename T, typename In>
void pack(
    const In* matrix,
    std::span<const int64_t> tokens,
    int64_t width,
    int64_t begin,
    int64_t end,
    T* packed) {
  const auto panel_size = static_cast<int64_t>(tokens.size()) * kWidth;
  for (const int64_t l : tokens) {
    T* panel = packed;
    for (int64_t first = begin; first < end; first += kWidth) {
      const In* const in = matrix + l * width + first;
      const int64_t count = std::min<int64_t>(kWidth, end - first);
      if (count == kWidth) {
        std::copy(in, in + kWidth, panel);
      } else {
        std::fill(std::copy(in, in + count, panel), panel + kWidth, T(0));
      }
      panel += panel_size;
    }
    packed += kWidth;
  }
}

int64_t round_up(int64_t count, int64_t step) {
  return (count + step - 1) / step * step;
}

} // namespace

template <typename T, typename In>
void add_squares(const SquareProducts<T, In>& products, const Block& block) {
  widest([&]<int kBytes>(VectorBytes<kBytes>) {
    using Tile = Tile<T, kBytes>;
    constexpr int kRows = Tile::kRows;
    constexpr int kColumns = Tile::kColumns;
    const auto& [fisher, input, output, examples, rows, columns, weight] =
        products;
    const int64_t d_width = round_up(block.row_end - block.row_begin, kRows);
    const int64_t a_width =
        round_up(block.column_end - block.column_begin, kColumns);
    const auto size_of = [&](int64_t tokens) {
      return (d_width + a_width) * tokens;
    };
    const int64_t room =
        std::max<int64_t>(kPackBytes / sizeof(T), size_of(examples.longest()));
    Scratch<T> packed(room);
    for (int64_t first = 0, end = 0; first < examples.size(); first = end) {
      end = examples.group_end(first, 1, room, size_of);
      T* next = packed.data();
      for (int64_t i = first; i < end; ++i) {
        const int64_t tokens = examples.count(i);
        pack<kRows>(
            output, examples[i], rows, block.row_begin, block.row_end, next);
        pack<kColumns>(
            input,
            examples[i],
            columns,
            block.column_begin,
            block.column_end,
            next + d_width * tokens);
        next += size_of(tokens);
      }
      for (int64_t j = 0; j < a_width; j += kColumns) {
        const int64_t column = block.column_begin + j;
        for (int64_t o = 0; o < d_width; o += kRows) {
          const int64_t row = block.row_begin + o;
          const T* d = packed.data();
          for (int64_t i = first; i < end; ++i) {
            const int64_t tokens = examples.count(i);
            Tile::accumulate(
                d + o * tokens,
                d + (d_width + j) * tokens,
                tokens,
                weight,
                fisher + row * columns + column,
                columns,
                std::min<int64_t>(kRows, block.row_end - row),
                std::min<int64_t>(kColumns, block.column_end - column));
            d += size_of(tokens);
          }
        }
      }
    }
  });
}

#define INSTANTIATE(T, In) \
  template void add_squares(const SquareProducts<T, In>&, const Block&);
INSTANTIATE(float, float)
INSTANTIATE(float, c10::BFloat16)
INSTANTIATE(float, c10::Half)
INSTANTIATE(double, double)

} // namespace merganser::ops
