// Compiled once per instruction set, with another MERGANSER_DENSE for the name
// of its kernels and another name for the namespace Eigen: otherwise the linker
// would keep one arbitrary copy of Eigen's templates.

#include "merganser/merge/dense.h"

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>

namespace merganser {
namespace {

using Matrix =
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Input = Eigen::Map<const Matrix>;
using Output = Eigen::Map<Matrix>;

void add_product(
    double factor,
    const double* a,
    const double* b,
    double* c,
    int64_t rows,
    int64_t k,
    int64_t n) {
  Output(c, rows, n).noalias() += factor * Input(a, rows, k) * Input(b, k, n);
}

void add_transposed_product(
    double factor,
    const double* a,
    int64_t stride,
    const double* b,
    double* c,
    int64_t rows,
    int64_t k,
    int64_t n) {
  const Eigen::Map<const Matrix, 0, Eigen::OuterStride<>> left(
      a, k, rows, Eigen::OuterStride<>(stride));
  Output(c, rows, n).noalias() += factor * left.transpose() * Input(b, k, n);
}

void add_square(const double* a, double* c, int64_t rows, int64_t k) {
  Output(c, rows, rows)
      .selfadjointView<Eigen::Lower>()
      .rankUpdate(Input(a, rows, k));
}

bool decompose(double* a, int64_t n) {
  Output matrix(a, n, n);
  const Eigen::LLT<Eigen::Ref<Matrix>> in_place(matrix);
  return in_place.info() == Eigen::Success;
}

void solve(const double* l, double* x, int64_t rows, int64_t n) {
  const auto lower = Input(l, n, n).triangularView<Eigen::Lower>();
  Output solved(x, rows, n);
  // y L^T = x, then z L = y
  lower.transpose().solveInPlace<Eigen::OnTheRight>(solved);
  lower.solveInPlace<Eigen::OnTheRight>(solved);
}

bool find_eigenvectors(double* a, double* values, int64_t n) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(Input(a, n, n));
  Eigen::Map<Eigen::MatrixXd>(a, n, n) = solver.eigenvectors(); // by columns
  Eigen::Map<Eigen::VectorXd>(values, n) = solver.eigenvalues();
  return solver.info() == Eigen::Success;
}

} // namespace

extern const DenseKernels MERGANSER_DENSE;
const DenseKernels MERGANSER_DENSE = {
    .add_product = &add_product,
    .add_transposed_product = &add_transposed_product,
    .add_square = &add_square,
    .decompose = &decompose,
    .solve = &solve,
    .find_eigenvectors = &find_eigenvectors};

} // namespace merganser
