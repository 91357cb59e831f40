#include "merganser/merge/gram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/base/quote.h"
#include "merganser/merge/dense.h"
#include "merganser/merge/read_elements.h"
#include "merganser/merge/value_errors.h"

namespace merganser {
namespace {

using Matrix = std::vector<double>; // row-major

// Rows of a matrix that one thread multiplies or solves for together.
constexpr int64_t kRows = 64;

class BlockMerge {
 public:
  BlockMerge(const TensorPlan& tensor, size_t output, int threads)
      : tensor_(tensor),
        parameters_(tensor.parameters[output]),
        matching_(tensor.method->matrix == MatrixRule::kGradientMatching),
        of_task_vectors_(tensor.grams.back().of_task_vector),
        base_(base_of(tensor)),
        // Methods without this parameter use the matrices unchanged.
        off_diagonal_(matching_ ? 1 : parameters_.off_diagonal),
        threads_(threads),
        rows_(tensor.output.shape[0]),
        columns_(tensor.output.shape[1]),
        update_(rows_ * columns_),
        updates_(rows_ * columns_),
        products_(rows_ * columns_),
        gram_(columns_ * columns_),
        total_(columns_ * columns_) {}

  std::vector<double> run() {
    const std::vector<double>& weights = parameters_.weights;
    double sum = 0;
    const double length = of_task_vectors_ ? mean_trace() : 1;
    for (size_t t = 0; t < weights.size(); ++t) {
      read_update(tensor_.sources[tensor_.model(t)]);
      const GramSource& gram = tensor_.grams[tensor_.gram(t)];
      if (of_task_vectors_) {
        set_gram(gram.num_examples * length);
      } else {
        read_gram(gram);
      }
      add(weights[t], update_, updates_);
      add(weights[t], gram_, total_);
      add_product(weights[t], update_);
      sum += weights[t];
    }
    if (tensor_.has_base_gram()) {
      read_gram(tensor_.grams[tensor_.base_gram()]);
      add(1, gram_, total_);
      add_product(1, updates_);
    }
    // If all matrices are 0, every multiple of the identity gives the same.
    const double mean = trace(total_) / static_cast<double>(columns_);
    const double ridge = parameters_.ridge * (mean == 0 ? 1 : mean);
    for (size_t i = 0; i < total_.size(); i += columns_ + 1) {
      total_[i] += ridge;
    }
    add(matching_ ? ridge : ridge / sum, updates_, products_);
    solve();
    return result();
  }

 private:
  // W_0 of methods that use it; regmean has it where its matrices are those of
  // task vectors, and does not depend on it.
  static const TensorSource* base_of(const TensorPlan& tensor) {
    if (tensor.method->needs_base) {
      return &tensor.sources[tensor.base()];
    }
    const GramSource& last = tensor.grams.back();
    return last.of_task_vector ? &last.matrix : nullptr;
  }

  // update_ = W_t - W_0, or W_t without W_0
  void read_update(const TensorSource& source) {
    read_weight(source, [&](int64_t i, double x) { update_[i] = x; });
    if (base_ != nullptr) {
      read_weight(*base_, [&](int64_t i, double x) { update_[i] -= x; });
    }
  }

  // The trace of the base's mean Gram matrix, which stands for those of the
  // tasks; 1 without it.
  double mean_trace() {
    if (!tensor_.has_base_gram()) {
      return 1;
    }
    const GramSource& base = tensor_.grams[tensor_.base_gram()];
    read_gram(base);
    return trace(gram_) / base.num_examples;
  }

  // gram_ = scale update_^T update_ / |update_|^2, or 0 if update_ is 0
  void set_gram(double scale) {
    double norm = 0;
    for (const double x : update_) {
      norm += x * x;
    }
    std::ranges::fill(gram_, 0.0);
    if (norm == 0) {
      return;
    }
    for_blocks(columns_, [&](int64_t begin, int64_t n) {
      dense_.add_transposed_product(
          scale / norm,
          &update_[begin],
          columns_,
          update_.data(),
          &gram_[begin * columns_],
          n,
          rows_,
          columns_);
    });
    for (int64_t i = 0; i < std::ssize(gram_); ++i) {
      gram_[i] *= i % (columns_ + 1) == 0 ? 1 : off_diagonal_;
    }
  }

  void read_gram(const GramSource& source) {
    int64_t next = 0; // on the diagonal
    read_elements(source.matrix, [&](int64_t i, double x) {
      const bool diagonal = i == next;
      next += diagonal ? columns_ + 1 : 0;
      if (!std::isfinite(x) || (diagonal && x < 0)) {
        refuse_value(
            source.matrix.tensor,
            x,
            i,
            "a Gram matrix must be finite and its diagonal not negative");
      }
      gram_[i] = source.num_examples * (diagonal ? x : off_diagonal_ * x);
    });
    check_symmetric(source.matrix);
  }

  void check_symmetric(const TensorSource& source) const {
    constexpr double kRounding = 1e-3; // relative to sqrt(g_ii g_jj)
    for (int64_t i = 0; i < columns_; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        const double scale =
            std::sqrt(gram_[i * columns_ + i] * gram_[j * columns_ + j]);
        const double x = gram_[i * columns_ + j];
        const double y = gram_[j * columns_ + i];
        if (!(std::abs(x - y) <= kRounding * scale)) {
          refuse_value(
              source.tensor,
              x,
              i * columns_ + j,
              "a Gram matrix must be symmetric");
        }
      }
    }
  }

  static void add(double factor, const Matrix& from, Matrix& to) {
    for (size_t i = 0; i < to.size(); ++i) {
      to[i] += factor * from[i];
    }
  }

  double trace(const Matrix& matrix) const {
    double sum = 0;
    for (size_t i = 0; i < matrix.size(); i += columns_ + 1) {
      sum += matrix[i];
    }
    return sum;
  }

  // products_ += weight * left * gram_
  void add_product(double weight, const Matrix& left) {
    for_blocks(rows_, [&](int64_t begin, int64_t n) {
      const int64_t first = begin * columns_;
      dense_.add_product(
          weight,
          &left[first],
          gram_.data(),
          &products_[first],
          n,
          columns_,
          columns_);
    });
  }

  // products_ = products_ total_^-1
  void solve() {
    if (!dense_.decompose(total_.data(), columns_)) {
      throw InputError(fmt::format(
          "the Gram matrices of tensor {} do not have full rank; set the "
          "parameter ridge to more than {}",
          quote(tensor_.output.name),
          parameters_.ridge));
    }
    for_blocks(rows_, [&](int64_t begin, int64_t n) {
      dense_.solve(total_.data(), &products_[begin * columns_], n, columns_);
    });
  }

  std::vector<double> result() {
    if (base_ != nullptr) {
      read_elements(*base_, [&](int64_t i, double x) { products_[i] += x; });
    }
    return std::move(products_);
  }

  // The blocks of rows do not depend on the number of threads.
  template <typename Work>
  void for_blocks(int64_t rows, const Work& work) {
    const int64_t blocks = (rows + kRows - 1) / kRows;
    parallel_for(threads_, blocks, [&](int64_t i, int) {
      work(i * kRows, std::min(kRows, rows - i * kRows));
    });
  }

  const DenseKernels& dense_ = dense_kernels();
  const TensorPlan& tensor_;
  const TensorParameters& parameters_;
  const bool matching_; // block_gradient_matching, otherwise regmean
  const bool of_task_vectors_;
  const TensorSource* const base_; // W_0, if it is used
  const double off_diagonal_;
  const int threads_;
  const int64_t rows_;
  const int64_t columns_;
  Matrix update_; // (out, in)
  Matrix updates_; // sum w_t update, (out, in)
  Matrix products_; // (out, in)
  Matrix gram_; // (in, in)
  Matrix total_; // (in, in)
};

} // namespace

std::vector<double> merge_with_grams(
    const TensorPlan& tensor,
    size_t output,
    int threads) {
  if (tensor.output.numel() == 0) {
    return {};
  }
  return BlockMerge(tensor, output, threads).run();
}

uint64_t gram_memory(const TensorPlan& tensor) {
  if (tensor.grams.empty()) {
    return 0;
  }
  const uint64_t rows = tensor.output.shape[0];
  const uint64_t columns = tensor.output.shape[1];
  const uint64_t weights = 2 + tensor.parameters.size(); // a result per output
  return sizeof(double) * (weights * rows + 2 * columns) * columns;
}

} // namespace merganser
