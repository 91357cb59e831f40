// Compiled once per instruction set, with another MERGANSER_DENSE for the name
// of its kernels and another name for the namespace Eigen: otherwise the linker
// would keep one arbitrary copy of Eigen's templates.

#include "merganser/merge/dense.h"

#include <Eigen/Cholesky>

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

} // namespace

extern const DenseKernels MERGANSER_DENSE;
const DenseKernels MERGANSER_DENSE = {
    .add_product = &add_product,
    .decompose = &decompose,
    .solve = &solve};

} // namespace merganser
