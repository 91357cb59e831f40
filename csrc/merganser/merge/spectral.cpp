#include "merganser/merge/spectral.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/base/quote.h"
#include "merganser/merge/dense.h"
#include "merganser/merge/read_elements.h"

namespace merganser {
namespace {

using Matrix = std::vector<double>; // row-major

// The eigenvectors of a a^T that belong to eigenvalues above rounding, one per
// row, in increasing order.
struct Eigenvectors {
  Matrix rows; // (count, n)
  std::vector<double> values; // (count)
  int64_t count() const {
    return std::ssize(values);
  }
};

class SpectralMerge {
 public:
  SpectralMerge(const TensorPlan& tensor, int threads)
      : tensor_(tensor),
        threads_(threads),
        rows_(tensor.output.shape[0]),
        columns_(tensor.output.shape[1]),
        short_(std::min(rows_, columns_)),
        long_(std::max(rows_, columns_)) {}

  std::vector<double> run() {
    const bool isotropic = tensor_.method->matrix == MatrixRule::kIsoC;
    return in_stored_order(isotropic ? iso_c() : tsv_m());
  }

 private:
  // mean(S) (a a^T)^-1/2 a, with a the sum of the task vectors
  Matrix iso_c() const {
    Matrix sum(short_ * long_);
    for (size_t t = 0; t < tensor_.num_models; ++t) {
      add_task_vector(t, sum);
    }
    const Eigenvectors found = eigenvectors(sum, short_, long_, short_);
    double mean = 0;
    for (const double value : found.values) {
      mean += std::sqrt(value) / static_cast<double>(short_);
    }
    Matrix scale = inverse_root(found, short_);
    for (double& x : scale) {
      x *= mean;
    }
    Matrix result(short_ * long_);
    dense_.add_product(
        1, scale.data(), sum.data(), result.data(), short_, short_, long_);
    return result;
  }

  // Singular vectors of a task vector, one per row, and singular values.
  struct Part {
    Matrix left; // (k, short)
    Matrix right; // (k, long)
    std::vector<double> values; // (k)
  };

  Part part_of(size_t t) const {
    Matrix tau(short_ * long_);
    add_task_vector(t, tau);
    const auto models = static_cast<int64_t>(tensor_.num_models);
    Eigenvectors found =
        eigenvectors(tau, short_, long_, std::max<int64_t>(short_ / models, 1));
    Part part{std::move(found.rows), {}, std::move(found.values)};
    part.right.resize(std::ssize(part.values) * long_);
    dense_.add_product(
        1,
        part.left.data(),
        tau.data(),
        part.right.data(),
        std::ssize(part.values),
        short_,
        long_);
    for (size_t i = 0; i < part.values.size(); ++i) {
      double& value = part.values[i];
      value = std::sqrt(value);
      for (double& x : std::span(part.right).subspan(i * long_, long_)) {
        x /= value;
      }
    }
    return part;
  }

  // Returns l^T (l l^T)^-1/2 S (r r^T)^-1/2 r, where the rows of l and r are
  // the vectors of all tasks.
  Matrix tsv_m() const {
    Part all = all_parts();
    const int64_t k = std::ssize(all.values);
    if (k == 0) {
      return Matrix(short_ * long_); // no model has changed the weight
    }
    Matrix roots[2];
    parallel_for(threads_, 2, [&](int64_t i, int) {
      const bool is_left = i == 0;
      const Matrix& vectors = is_left ? all.left : all.right;
      roots[i] = inverse_root(
          eigenvectors(vectors, k, is_left ? short_ : long_, k), k);
    });
    for (int64_t i = 0; i < k * k; ++i) {
      roots[1][i] *= all.values[i / k];
    }
    Matrix middle(k * k);
    dense_.add_product(
        1, roots[0].data(), roots[1].data(), middle.data(), k, k, k);
    Matrix scaled(k * long_);
    dense_.add_product(
        1, middle.data(), all.right.data(), scaled.data(), k, k, long_);
    all.right = {};
    Matrix result(short_ * long_);
    dense_.add_transposed_product(
        1,
        all.left.data(),
        short_,
        scaled.data(),
        result.data(),
        short_,
        k,
        long_);
    return result;
  }

  Part all_parts() const {
    std::vector<Part> parts(tensor_.num_models);
    parallel_for(threads_, std::ssize(parts), [&](int64_t t, int) {
      parts[t] = part_of(t);
    });
    Part all;
    for (Part& part : parts) {
      const auto append = [](const auto& from, auto& to) {
        to.insert(to.end(), from.begin(), from.end());
      };
      append(part.left, all.left);
      append(part.right, all.right);
      append(part.values, all.values);
      part = {};
    }
    return all;
  }

  // Adds W_t - W_0 as (short, long).
  void add_task_vector(size_t t, Matrix& sum) const {
    const auto add = [&](const TensorSource& source, double factor) {
      read_weight(source, [&](int64_t i, double x) {
        const int64_t place =
            rows_ <= columns_ ? i : i % columns_ * rows_ + i / columns_;
        sum[place] += factor * x;
      });
    };
    add(tensor_.sources[tensor_.model(t)], 1);
    add(tensor_.sources[tensor_.base()], -1);
  }

  // The last `most` eigenvectors of a a^T, with a (rows, k).
  Eigenvectors eigenvectors(
      const Matrix& a,
      int64_t rows,
      int64_t k,
      int64_t most) const {
    Matrix square(rows * rows);
    std::vector<double> values(rows);
    dense_.add_square(a.data(), square.data(), rows, k);
    if (!dense_.find_eigenvectors(square.data(), values.data(), rows)) {
      throw Error(fmt::format(
          "the singular values of tensor {} do not converge",
          quote(tensor_.output.name)));
    }
    const double rounding = static_cast<double>(rows) *
        std::numeric_limits<double>::epsilon() *
        (values.empty() ? 0 : values.back());
    int64_t first = rows - std::min(most, rows);
    while (first < rows && values[first] <= rounding) {
      ++first;
    }
    square.erase(square.begin(), square.begin() + first * rows);
    values.erase(values.begin(), values.begin() + first);
    return {std::move(square), std::move(values)};
  }

  // (a a^T)^-1/2 (n, n) in the span of the eigenvectors
  Matrix inverse_root(Eigenvectors found, int64_t n) const {
    for (int64_t i = 0; i < found.count(); ++i) {
      const double factor = std::pow(found.values[i], -0.25);
      for (double& x : std::span(found.rows).subspan(i * n, n)) {
        x *= factor;
      }
    }
    Matrix root(n * n);
    dense_.add_transposed_product(
        1,
        found.rows.data(),
        n,
        found.rows.data(),
        root.data(),
        n,
        found.count(),
        n);
    return root;
  }

  Matrix in_stored_order(Matrix merged) const {
    if (rows_ <= columns_) {
      return merged;
    }
    Matrix stored(merged.size());
    for (int64_t i = 0; i < std::ssize(stored); ++i) {
      stored[i] = merged[i % columns_ * rows_ + i / columns_];
    }
    return stored;
  }

  const DenseKernels& dense_ = dense_kernels();
  const TensorPlan& tensor_;
  const int threads_;
  const int64_t rows_;
  const int64_t columns_;
  const int64_t short_;
  const int64_t long_;
};

} // namespace

std::vector<double> merge_task_vectors(const TensorPlan& tensor, int threads) {
  if (tensor.output.numel() == 0) {
    return {};
  }
  return SpectralMerge(tensor, threads).run();
}

uint64_t spectral_memory(const TensorPlan& tensor) {
  if (!tensor.spectral) {
    return 0;
  }
  const uint64_t n = std::min(tensor.output.shape[0], tensor.output.shape[1]);
  const uint64_t weight = tensor.output.numel();
  // Squares: the matrix, its eigenvectors and the solver's copies.
  // tsv_m: the vectors of all tasks, twice while they are concatenated, and
  // a task vector, or the product with S and the result. Measured, with what
  // the allocator keeps between them.
  const bool isotropic = tensor.method->matrix == MatrixRule::kIsoC;
  return sizeof(double) *
      (isotropic ? 3 * weight + 6 * n * n : 4 * weight + 8 * n * n);
}

} // namespace merganser
