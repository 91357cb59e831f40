// One tile of the weight matrix at a time: the product of each example's tokens
// goes into a buffer that stays in cache and is squared from there. oneDNN
// computes the products, through ATen, with AVX-512's bfloat16 instructions or
// with AMX's tiles where the CPU has them.
//
// Compiled with FMA contraction, like square_products.cpp.

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <exception>

#include "merganser/numeric/simd.h"
#include "merganser/ops/bf16_operands.h"
#include "merganser/ops/scratch.h"
#include "merganser/ops/square_products.h"

namespace merganser::ops {
namespace {

using at::native::cpublas::brgemm;
using at::native::cpublas::brgemm_release;

using Products = SquareProducts<float, c10::BFloat16>;

constexpr int64_t kTile = kBf16Tile;
static_assert(kBlockStep % kTile == 0);

// Size of the packed operands of one pass: a common second-level cache.
constexpr int64_t kPackBytes = 1024 * 1024;

// product (rows, kTile) = d (rows, 2 * stride) times a (pairs, kTile, 2)
void multiply(
    const Bf16Pair* d,
    int64_t stride,
    const Bf16Pair* a,
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

// brgemm has no predicate: it throws where oneDNN lacks it. ATen requires only
// AVX-512, with which oneDNN would emulate bfloat16 products.
bool try_brgemm() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) {
    const Bf16Pair ones = 0x3f803f80;
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

// A tile of the Fisher.
struct Tile {
  float* fisher; // its first element
  int64_t stride; // columns of the Fisher
  int64_t rows;
  int64_t columns;

  void prefetch() const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; c += kPairLanes) {
        __builtin_prefetch(fisher + r * stride + c, /*rw=*/1);
      }
    }
  }

  // Adds the squares of two products (rows, kTile).
  void add_squares(const float* one, const float* other, float weight) const {
    for (int64_t r = 0; r < rows; ++r) {
      float* const f = fisher + r * stride;
      const float* const x = one + r * kTile;
      const float* const y = other + r * kTile;
      for (int64_t c = 0; c < columns; ++c) {
        f[c] += (x[c] * x[c] + y[c] * y[c]) * weight;
      }
    }
  }
};

// A block's operands, packed for a group of examples at a time: for each
// example its output, transposed, and then its input.
class PackedGroup {
 public:
  PackedGroup(const Products& products, const Block& block)
      : products_(products),
        block_(block),
        d_width_(round_up(block.row_end - block.row_begin, kTile)),
        a_width_(round_up(block.column_end - block.column_begin, kTile)),
        room_(std::max<int64_t>(
            kPackBytes / sizeof(Bf16Pair),
            2 * size_of(products.examples.longest()))),
        packed_(room_) {}

  // Packs the examples from `first` on; returns the end of the group.
  int64_t pack_from(int64_t first) {
    const auto& [fisher, input, output, examples, rows, columns, weight] =
        products_;
    first_ = first;
    end_ = examples.group_end(
        first, 2, room_, [&](int64_t tokens) { return size_of(tokens); });
    Bf16Pair* next = packed_.data();
    for (int64_t i = first_; i < end_; ++i) {
      const int64_t stride = pair_stride_of(examples.count(i));
      pack_transposed(
          {output, rows, examples[i], block_.row_begin, block_.row_end},
          stride,
          next);
      pack(
          {input, columns, examples[i], block_.column_begin, block_.column_end},
          next + d_width_ * stride);
      next += size_of(examples.count(i));
    }
    return end_;
  }

  // Adds the group's squares to the Fisher.
  void accumulate() {
    for (int64_t j = 0; j < a_width_; j += kTile) {
      for (int64_t o = 0; o < d_width_; o += kTile) {
        accumulate_tile(o, j);
      }
    }
  }

 private:
  // Packed pairs of an example.
  int64_t size_of(int64_t tokens) const {
    return d_width_ * pair_stride_of(tokens) + a_width_ * pairs_of(tokens);
  }

  // The tile begins at row `o` and column `j` of the block.
  void accumulate_tile(int64_t o, int64_t j) {
    const int64_t row = block_.row_begin + o;
    const int64_t column = block_.column_begin + j;
    const Tile tile{
        products_.fisher + row * products_.columns + column,
        products_.columns,
        std::min(kTile, block_.row_end - row),
        std::min(kTile, block_.column_end - column)};
    const Bf16Pair* d = packed_.data();
    const auto multiply_next = [&](int64_t i, float* product) {
      const int64_t tokens = products_.examples.count(i);
      const int64_t pairs = pairs_of(tokens);
      const int64_t stride = pair_stride_of(tokens);
      multiply(
          d + o * stride,
          stride,
          d + d_width_ * stride + j * pairs,
          pairs,
          tile.rows,
          tile.columns,
          product);
      d += size_of(tokens);
    };
    tile.prefetch(); // arrives during the first products
    // Two examples at a time: half as many passes over the Fisher.
    for (int64_t i = first_; i < end_; i += 2) {
      multiply_next(i, one_);
      if (i + 1 < end_) {
        multiply_next(i + 1, other_);
      } else {
        std::fill(other_, other_ + kTile * kTile, 0.0F);
      }
      tile.add_squares(one_, other_, products_.weight);
    }
  }

  const Products& products_;
  const Block& block_;
  int64_t d_width_; // rows of the block in whole tiles
  int64_t a_width_; // columns of the block in whole tiles
  int64_t room_; // in pairs
  Scratch<Bf16Pair> packed_;
  int64_t first_ = 0;
  int64_t end_ = 0;
  alignas(64) float one_[kTile * kTile];
  alignas(64) float other_[kTile * kTile];
};

} // namespace

bool has_bf16_products() {
  if (!at::globalContext().userEnabledMkldnn()) {
    return false;
  }
  static const bool works = try_brgemm();
  return works;
}

void add_squares_bf16(const Products& products, const Block& block) {
  widest([&] {
    PackedGroup group(products, block);
    const int64_t examples = products.examples.size();
    for (int64_t first = 0; first < examples;) {
      first = group.pack_from(first);
      group.accumulate();
    }
    brgemm_release();
  });
}

} // namespace merganser::ops
