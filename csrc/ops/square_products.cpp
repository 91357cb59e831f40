// One tile of the weight matrix at a time: kRows rows by two vectors of
// columns, whose products over an example's tokens add up in registers and are
// squared there, so that they are never written to memory. The operands of a
// tile are packed (in the order in which it reads them) once per example.
//
// Compiled with FMA contraction, unlike the rest: sums of products promise no
// bits across machines, and without it they would take twice the time.

#include "ops/square_products.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <vector>

#include "kernels/widest.h"

namespace merganser::ops {
namespace {

// What the packed operands of one pass may take: half of a common second-level
// cache.
constexpr int64_t kPackBytes = 512 * 1024;

template <typename T, int kBytes>
struct Tile {
  // 12 x 2 sums fill 24 of AVX-512's 32 registers, 6 x 2 12 of the other
  // instruction sets' 16; two are for the columns and one for the row.
  static constexpr int kRows = kBytes == 64 ? 12 : 6;
  static constexpr int kLanes = kBytes / sizeof(T);
  static constexpr int kColumns = 2 * kLanes;
  typedef T Vector
      __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));

  // fisher += weight * (d^T a)^2 with d (tokens, kRows), a (tokens, kColumns);
  // of the tile only `rows` x `columns` exist.
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

// matrix (tokens, width): its columns [begin, end) as panels (panel, token,
// kWidth), filled up with zeros.
template <int kWidth, typename T, typename In>
void pack(
    const In* matrix,
    int64_t tokens,
    int64_t width,
    int64_t begin,
    int64_t end,
    T* packed) {
  for (int64_t first = begin; first < end; first += kWidth) {
    const int64_t count = std::min<int64_t>(kWidth, end - first);
    for (int64_t l = 0; l < tokens; ++l, packed += kWidth) {
      const In* const in = matrix + l * width + first;
      if (count == kWidth) {
        std::copy(in, in + kWidth, packed);
      } else {
        std::fill(std::copy(in, in + count, packed), packed + kWidth, T(0));
      }
    }
  }
}

int64_t panels(int64_t count, int64_t width) {
  return (count + width - 1) / width;
}

} // namespace

template <typename T, typename In>
void SquareProducts<T, In>::run(
    int64_t row_begin,
    int64_t row_end,
    int64_t column_begin,
    int64_t column_end) const {
  widest([&]<int kBytes>(VectorBytes<kBytes>) {
    constexpr int kRows = Tile<T, kBytes>::kRows;
    constexpr int kColumns = Tile<T, kBytes>::kColumns;
    const int64_t row_panels = panels(row_end - row_begin, kRows);
    const int64_t column_panels = panels(column_end - column_begin, kColumns);
    const int64_t d_size = row_panels * kRows * tokens;
    const int64_t a_size = column_panels * kColumns * tokens;
    const int64_t group = std::clamp<int64_t>(
        kPackBytes / static_cast<int64_t>(sizeof(T)) /
            std::max<int64_t>(d_size + a_size, 1),
        1,
        std::max<int64_t>(examples, 1));
    std::vector<T> packed_d(group * d_size);
    std::vector<T> packed_a(group * a_size);
    for (int64_t first = 0; first < examples; first += group) {
      const int64_t count = std::min(group, examples - first);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t example = first + i;
        pack<kRows>(
            output + example * tokens * rows,
            tokens,
            rows,
            row_begin,
            row_end,
            packed_d.data() + i * d_size);
        pack<kColumns>(
            input + example * tokens * columns,
            tokens,
            columns,
            column_begin,
            column_end,
            packed_a.data() + i * a_size);
      }
      for (int64_t q = 0; q < column_panels; ++q) {
        const int64_t column = column_begin + q * kColumns;
        for (int64_t p = 0; p < row_panels; ++p) {
          const int64_t row = row_begin + p * kRows;
          for (int64_t i = 0; i < count; ++i) {
            Tile<T, kBytes>::accumulate(
                packed_d.data() + i * d_size + p * kRows * tokens,
                packed_a.data() + i * a_size + q * kColumns * tokens,
                tokens,
                weight,
                fisher + row * columns + column,
                columns,
                std::min<int64_t>(kRows, row_end - row),
                std::min<int64_t>(kColumns, column_end - column));
          }
        }
      }
    }
  });
}

template struct SquareProducts<float, float>;
template struct SquareProducts<float, c10::BFloat16>;
template struct SquareProducts<float, c10::Half>;
template struct SquareProducts<double, double>;

} // namespace merganser::ops
