#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

#include "merganser/ops/example_tokens.h"

namespace merganser::ops {

// A rectangular part of a matrix.
struct Block {
  int64_t row_begin;
  int64_t row_end;
  int64_t column_begin;
  int64_t column_end;
};

// Sums of squared products of small matrices, the inner loop of
// linear_square_accumulate_:
//
//   fisher[o][j] += weight * sum_i (sum_l output[l][o] * input[l][j])^2
//
// over the examples i and their tokens l, for the elements of a block, on one
// thread. input (all tokens, columns), output (all tokens, rows), fisher (rows,
// columns). T is float or double; In is T, or a half type with float.
template <typename T, typename In>
struct SquareProducts {
  T* fisher;
  const In* input;
  const In* output;
  const ExampleTokens& examples;
  int64_t rows;
  int64_t columns;
  T weight;
};

// Blocks begin at multiples of this in both directions. The bits of an element
// do not depend on how the matrix is cut into such blocks.
constexpr int64_t kBlockStep = 64;

// Computes in T, to which half inputs are converted.
template <typename T, typename In>
void add_squares(const SquareProducts<T, In>& products, const Block& block);

// Multiplies pairs of bfloat16 numbers with the CPU's instructions and adds in
// float32. Requires has_bf16_products().
void add_squares_bf16(
    const SquareProducts<float, c10::BFloat16>& products,
    const Block& block);

bool has_bf16_products();

} // namespace merganser::ops
