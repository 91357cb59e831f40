#pragma once

#include <cstdint>

namespace merganser {

// Matrix arithmetic in float64, row-major, on one thread, by Eigen. Eigen
// chooses its vectors when it is compiled: dense.cpp is, once per instruction
// set. Another one may round differently in the last place.
struct DenseKernels {
  // c (rows, n) += factor a (rows, k) b (k, n)
  void (*add_product)(
      double factor,
      const double* a,
      const double* b,
      double* c,
      int64_t rows,
      int64_t k,
      int64_t n);
  // a (n, n) = L L^T, of which L takes the place of a's lower triangle; false:
  // a is not positive definite.
  bool (*decompose)(double* a, int64_t n);
  // x (rows, n) becomes x (L L^T)^-1.
  void (*solve)(const double* l, double* x, int64_t rows, int64_t n);
};

// Those for the machine at hand.
const DenseKernels& dense_kernels();

} // namespace merganser
