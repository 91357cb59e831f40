#pragma once

// A block's tile of the products D_i^T A_i in the registers of its 256 threads.
// One thread owns some elements: their sums over the tokens of the current
// example, and the squares of the sums of the examples before. One kind of tile
// is for the types that tensor cores multiply (bfloat16, half), one for float
// and double.

#include <cmath>
#include <type_traits>

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/vectors.cuh"

namespace merganser::kernels {

constexpr int kTileThreads = 256;
// Rows and columns of a tile, limited by the registers.
template <typename In>
constexpr int kTileSide = sizeof(In) == 8 ? 64 : 128;

// A tile's columns of some tokens, in shared memory.
template <typename In>
struct Slice {
  static constexpr int kTokens = 64 / sizeof(In);
  static constexpr int kPack = 16 / sizeof(In);
  static constexpr int kPacks = kTileSide<In> / kPack; // of a token
  Pack<In, kPack> packs[kTokens][kPacks];

  // Columns kPack c to kPack c + kPack - 1 of token k. Permuted, so that the
  // same columns of 8 tokens, which ldmatrix reads at once, are in all banks.
  __device__ Pack<In, kPack>& at(int k, int c) {
    return packs[k][c ^ (k % 8)];
  }
};

template <typename T, int kRows, int kColumns>
struct Squares {
  T sums[kRows][kColumns] = {};
  T squares[kRows][kColumns] = {};

  __device__ void end_example() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        squares[r][c] = std::fma(sums[r][c], sums[r][c], squares[r][c]);
        sums[r][c] = 0;
      }
    }
  }
};

// Each of 2 x 4 warps owns 64 x 32 elements: 4 x 4 products of tensor cores.
// One thread owns 4 elements of each product.
template <typename In>
struct TensorCoreTile {
  static constexpr int kProducts = 4; // along each side
  static constexpr int kDepth = 16; // tokens of one product
  Squares<float, kProducts * kProducts, 4> own;
  int lane = threadIdx.x % 32;
  int row = threadIdx.x / 32 / 4 * 64;
  int column = threadIdx.x / 32 % 4 * 32;

  __device__ void multiply(Slice<In>& output, Slice<In>& input, int tokens) {
    const int matrix = lane / 8; // the lane addresses one of its rows
#pragma unroll
    for (int k = 0; k < Slice<In>::kTokens; k += kDepth) {
      if (k >= tokens) {
        break;
      }
      uint32_t d[kProducts][4];
#pragma unroll
      for (int r = 0; r < kProducts; ++r) {
        load_transposed(
            d[r],
            &output.at(
                k + matrix / 2 * 8 + lane % 8, row / 8 + 2 * r + matrix % 2));
      }
#pragma unroll
      for (int c = 0; c < kProducts; c += 2) {
        uint32_t a[4]; // for two products
        load_transposed(
            a,
            &input.at(
                k + matrix % 2 * 8 + lane % 8, column / 8 + c + matrix / 2));
#pragma unroll
        for (int r = 0; r < kProducts; ++r) {
          multiply_add<In>(own.sums[r * kProducts + c], d[r], {a[0], a[1]});
          multiply_add<In>(own.sums[r * kProducts + c + 1], d[r], {a[2], a[3]});
        }
      }
    }
  }

  // Calls f(row, column, sum of squares) for each element of the thread.
  template <typename F>
  __device__ void for_each(const F& f) const {
#pragma unroll
    for (int p = 0; p < kProducts * kProducts; ++p) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        f(row + p / kProducts * 16 + lane / 4 + i / 2 * 8,
          column + p % kProducts * 8 + lane % 4 * 2 + i % 2,
          own.squares[p][i]);
      }
    }
  }
};

// Each of 16 x 16 threads owns two packs of rows by two packs of columns, half
// a tile apart.
template <typename T>
struct FmaTile {
  static constexpr int kThreads = 16; // along each side
  static constexpr int kPack = Slice<T>::kPack;
  static constexpr int kOwn = 2 * kPack;
  static_assert(kTileSide<T> == kThreads * kOwn);
  Squares<T, kOwn, kOwn> own;
  int x = threadIdx.x % kThreads;
  int y = threadIdx.x / kThreads;

  __device__ void multiply(Slice<T>& output, Slice<T>& input, int /*tokens*/) {
#pragma unroll
    for (int k = 0; k < Slice<T>::kTokens; ++k) {
      const Pack<T, kPack> d[] = {output.at(k, y), output.at(k, y + kThreads)};
      const Pack<T, kPack> a[] = {input.at(k, x), input.at(k, x + kThreads)};
#pragma unroll
      for (int r = 0; r < kOwn; ++r) {
#pragma unroll
        for (int c = 0; c < kOwn; ++c) {
          own.sums[r][c] = std::fma(
              d[r / kPack].value[r % kPack],
              a[c / kPack].value[c % kPack],
              own.sums[r][c]);
        }
      }
    }
  }

  template <typename F>
  __device__ void for_each(const F& f) const {
    const auto place = [](int i, int thread) {
      return (i / kPack * kThreads + thread) * kPack + i % kPack;
    };
#pragma unroll
    for (int r = 0; r < kOwn; ++r) {
#pragma unroll
      for (int c = 0; c < kOwn; ++c) {
        f(place(r, y), place(c, x), own.squares[r][c]);
      }
    }
  }
};

template <typename In>
using ProductTile =
    std::conditional_t<sizeof(In) == 2, TensorCoreTile<In>, FmaTile<In>>;

} // namespace merganser::kernels
