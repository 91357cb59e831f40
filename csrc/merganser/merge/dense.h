#pragma once

#include <cstdint>

namespace merganser {

// Matrix arithmetic in float64, row-major, on one thread, by Eigen. Eigen
// chooses its vector width at compile time, so dense.cpp is compiled once per
// instruction set. Results of different sets may differ in the last place.
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
  // c (rows, n) += factor a^T b, a (k, rows) with rows `stride` apart, b (k, n)
  void (*add_transposed_product)(
      double factor,
      const double* a,
      int64_t stride,
      const double* b,
      double* c,
      int64_t rows,
      int64_t k,
      int64_t n);
  // The lower triangle of c (rows, rows) += a a^T, with a (rows, k)
  void (*add_square)(const double* a, double* c, int64_t rows, int64_t k);
  // Replaces the lower triangle of a (n, n) = L L^T by L. Returns false if a is
  // not positive definite.
  bool (*decompose)(double* a, int64_t n);
  // x (rows, n) = x (L L^T)^-1
  void (*solve)(const double* l, double* x, int64_t rows, int64_t n);
  // Replaces the symmetric a (n, n), of which it reads the lower triangle, by
  // its eigenvectors, one per row, in the increasing order of `values` (n).
  // Returns false if it does not converge.
  bool (*find_eigenvectors)(double* a, double* values, int64_t n);
};

// Returns the kernels for the widest vectors of this machine.
const DenseKernels& dense_kernels();

} // namespace merganser
