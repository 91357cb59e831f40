#include "merge/gram.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

#include "io/error.h"
#include "io/parallel.h"
#include "io/quote.h"
#include "merge/chunk_reader.h"

namespace merganser {
namespace {

using Matrix =
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Rows of W that are multiplied and solved for together, by one thread.
constexpr int64_t kRows = 64;

// All chunks of a source, as float64.
class SourceReader {
 public:
  explicit SourceReader(const TensorSource& source) {
    alone_.sources = {source};
  }

  // use(i, x) for every element.
  template <typename Use>
  void read(const Use& use) {
    const int64_t n = alone_.sources[0].tensor.info().numel();
    for (Chunk chunk; chunk.begin < n; chunk.begin += chunk.n) {
      chunk.n = std::min(kChunkElements, n - chunk.begin);
      Digest ignored;
      reader_.read(alone_, chunk, std::span(&ignored, 1));
      for (int64_t i = 0; i < chunk.n; ++i) {
        use(chunk.begin + i, reader_.values(0)[i]);
      }
    }
  }

 private:
  TensorPlan alone_;
  ChunkReader<double> reader_;
};

class BlockMerge {
 public:
  BlockMerge(
      const MergePlan& plan,
      const TensorPlan& tensor,
      size_t output,
      int threads)
      : tensor_(tensor),
        parameters_(tensor.parameters[output]),
        base_(plan.recipe.method->block == BlockRule::kGradientMatching),
        // Every matrix is as it is where the method has no such parameter.
        off_diagonal_(base_ ? 1 : parameters_.off_diagonal),
        threads_(threads),
        rows_(tensor.output.shape[0]),
        columns_(tensor.output.shape[1]),
        update_(rows_, columns_),
        updates_(Matrix::Zero(rows_, columns_)),
        products_(Matrix::Zero(rows_, columns_)),
        gram_(columns_, columns_),
        total_(Matrix::Zero(columns_, columns_)) {}

  std::vector<double> run() {
    const std::vector<double>& weights = parameters_.weights;
    double sum = 0;
    for (size_t t = 0; t < weights.size(); ++t) {
      const size_t source = base_ ? 1 + t : t;
      read_update(tensor_.sources[source]);
      read_gram(tensor_.grams[source]);
      updates_ += weights[t] * update_;
      total_ += weights[t] * gram_;
      add_product(weights[t], update_);
      sum += weights[t];
    }
    if (base_) {
      read_gram(tensor_.grams[0]);
      total_ += gram_;
      add_product(1, updates_);
    }
    const double ridge = parameters_.ridge * total_.diagonal().mean();
    total_.diagonal().array() += ridge;
    products_ += (base_ ? ridge : ridge / sum) * updates_;
    solve();
    return result();
  }

 private:
  // update_ = W_t - W_0, or W_t where there is no W_0.
  void read_update(const TensorSource& source) {
    read_weight(source, [&](int64_t i, double x) { update_.data()[i] = x; });
    if (base_) {
      read_weight(tensor_.sources[0], [&](int64_t i, double x) {
        update_.data()[i] -= x;
      });
    }
  }

  template <typename Use>
  void read_weight(const TensorSource& source, const Use& use) {
    SourceReader(source).read([&](int64_t i, double x) {
      if (!std::isfinite(x)) {
        refuse(source, x, i, "only finite values can be solved with");
      }
      use(i, x);
    });
  }

  [[noreturn]] static void refuse(
      const TensorSource& source,
      double x,
      int64_t i,
      const char* why) {
    throw InputError(fmt::format(
        "{}: tensor {} is {} at index {}, {}",
        source.tensor.file().string(),
        quote(source.tensor.info().name),
        x,
        i,
        why));
  }

  void read_gram(const GramSource& source) {
    SourceReader(source.matrix).read([&](int64_t i, double x) {
      const bool diagonal = i % (columns_ + 1) == 0;
      if (!std::isfinite(x) || (diagonal && x < 0)) {
        refuse(
            source.matrix,
            x,
            i,
            "a Gram matrix is finite and its diagonal is not negative");
      }
      gram_.data()[i] = source.scale * (diagonal ? x : off_diagonal_ * x);
    });
  }

  // products_ += weight * of * gram_
  void add_product(double weight, const Matrix& of) {
    for_rows([&](int64_t begin, int64_t n) {
      products_.middleRows(begin, n).noalias() +=
          weight * of.middleRows(begin, n) * gram_;
    });
  }

  // products_ = products_ total_^-1
  void solve() {
    const Eigen::LLT<Eigen::Ref<Matrix>> factor(total_);
    if (factor.info() != Eigen::Success) {
      throw InputError(fmt::format(
          "the Gram matrices of tensor {} do not have full rank; give the "
          "parameter ridge a larger value than {}",
          quote(tensor_.output.name),
          parameters_.ridge));
    }
    for_rows([&](int64_t begin, int64_t n) {
      auto rows = products_.middleRows(begin, n);
      // In place would be column by column.
      const Eigen::MatrixXd solved = factor.solve(rows.transpose());
      rows = solved.transpose();
    });
  }

  std::vector<double> result() {
    std::vector<double> merged(products_.size());
    if (base_) {
      SourceReader(tensor_.sources[0]).read([&](int64_t i, double x) {
        merged[i] = x + products_.data()[i];
      });
    } else {
      std::copy_n(products_.data(), merged.size(), merged.begin());
    }
    return merged;
  }

  // The blocks of rows do not depend on the number of threads.
  template <typename Work>
  void for_rows(const Work& work) {
    const int64_t blocks = (rows_ + kRows - 1) / kRows;
    parallel_for(threads_, blocks, [&](int64_t i, int) {
      work(i * kRows, std::min(kRows, rows_ - i * kRows));
    });
  }

  const TensorPlan& tensor_;
  const TensorParameters& parameters_;
  const bool base_;
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
    const MergePlan& plan,
    const TensorPlan& tensor,
    size_t output,
    int threads) {
  if (tensor.output.numel() == 0) {
    return {};
  }
  return BlockMerge(plan, tensor, output, threads).run();
}

uint64_t gram_memory(const TensorPlan& tensor) {
  if (tensor.grams.empty()) {
    return 0;
  }
  const uint64_t rows = tensor.output.shape[0];
  const uint64_t columns = tensor.output.shape[1];
  const uint64_t weights = 3 + tensor.parameters.size(); // a result per output
  return sizeof(double) * (weights * rows + 2 * columns) * columns;
}

} // namespace merganser
