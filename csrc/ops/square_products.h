#pragma once

#include <cstdint>

namespace merganser::ops {

// Sums of squared products of small matrices, torch-free: what
// linear_square_accumulate_ spends its time in.
//
//   fisher[o][j] += weight * sum_i (sum_l output[i][l][o] * input[i][l][j])^2
//
// for o in [row_begin, row_end) and j in [column_begin, column_end), on one
// thread. input (examples, tokens, columns), output (examples, tokens, rows),
// fisher (rows, columns). Each element adds up in the order of examples and
// tokens, whatever the range: the bits do not depend on how the matrix is
// shared out. T is float or double; In is T, or a half type beside float.
template <typename T, typename In>
struct SquareProducts {
  T* fisher;
  const In* input;
  const In* output;
  int64_t examples;
  int64_t tokens;
  int64_t rows;
  int64_t columns;
  T weight;

  void run(
      int64_t row_begin,
      int64_t row_end,
      int64_t column_begin,
      int64_t column_end) const;
};

} // namespace merganser::ops
