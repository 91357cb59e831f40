#include "merganser/plan/subspace_weights.h"

#include <fmt/format.h>
#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "merganser/base/error.h"
#include "merganser/recipe/parameter_values.h"

namespace merganser {
namespace {

using Matrix =
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

// Rounding errors, relative to the largest curvature of a column.
constexpr double kRounding = 1e-12;

constexpr std::array kShrinks =
    {0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0};

// Eigenvalue of A with unit diagonal below which columns depend on one another,
// up to the rounding of float32 weights: the model moves along none of them.
constexpr double kDependent = 1e-6;

// 1/2 v^T A v - b^T v
struct Quadratic {
  Matrix a;
  Vector b;

  double at(const Vector& v) const {
    return 0.5 * v.dot(a * v) - b.dot(v);
  }

  Vector minimum(double shrink) const {
    // A column that no output depends on (a zero task vector, attention's key
    // biases) has only rounding errors as its curvature and gradient: its
    // weight is 0. All others are scaled to curvature 1.
    const double least = kRounding * a.diagonal().maxCoeff();
    const Vector scale =
        (a.diagonal().array() > least).select(a.diagonal().array().rsqrt(), 0);
    Matrix unit = (1 - shrink) * (scale.asDiagonal() * a * scale.asDiagonal());
    unit.diagonal().setOnes();
    return scale.cwiseProduct(solve(unit, scale.cwiseProduct(b), shrink));
  }

 private:
  // `unit` has no eigenvalue below `shrink`.
  static Vector solve(const Matrix& unit, const Vector& pull, double shrink) {
    if (shrink > kDependent) {
      return unit.ldlt().solve(pull);
    }
    const Eigen::SelfAdjointEigenSolver<Matrix> eigen(unit);
    const auto values = eigen.eigenvalues().array();
    const Vector inverse = (values > kDependent).select(values.inverse(), 0);
    const auto& vectors = eigen.eigenvectors();
    return vectors * inverse.cwiseProduct(vectors.transpose() * pull);
  }
};

class Problem {
 public:
  Problem(
      const SubspaceFisher& fisher,
      const std::vector<size_t>& experts,
      const std::vector<double>& alphas)
      : fisher_(fisher), experts_(experts), alphas_(alphas) {
    const size_t groups = fisher.groups.size();
    for (const size_t t : experts) {
      for (size_t g = 0; g < groups; ++g) {
        columns_.push_back(t * groups + g);
      }
    }
    folds_ = fisher.base.counts.size();
    for (const size_t t : experts) {
      if (!fisher.experts[t].is_direction()) {
        folds_ = std::min(folds_, fisher.experts[t].counts.size());
      }
    }
  }

  size_t folds() const {
    return folds_;
  }

  // Sum over the folds that `uses` accepts. Losses may have different numbers
  // of folds: those beyond the smallest number count as its last fold.
  template <typename Uses>
  Quadratic from(const Uses& uses) const {
    const auto width = static_cast<Eigen::Index>(columns_.size());
    Quadratic sum{Matrix::Zero(width, width), Vector::Zero(width)};
    add(sum, fisher_.base, 1, nullptr, uses);
    for (size_t t = 0; t < experts_.size(); ++t) {
      const SubspaceFisher::Loss& loss = fisher_.experts[experts_[t]];
      if (!loss.is_direction()) {
        add(sum, loss, alphas_[t], &t, uses);
      }
    }
    return sum;
  }

 private:
  // Adds alpha times a loss of N examples; `expert`: the position among those
  // used, null for the base.
  template <typename Uses>
  void add(
      Quadratic& sum,
      const SubspaceFisher::Loss& loss,
      double alpha,
      const size_t* expert,
      const Uses& uses) const {
    const auto width = static_cast<Eigen::Index>(columns_.size());
    const size_t all = fisher_.columns();
    Matrix h = Matrix::Zero(width, width);
    Vector g = Vector::Zero(width);
    int64_t count = 0;
    for (size_t fold = 0; fold < loss.counts.size(); ++fold) {
      if (!uses(std::min(fold, folds_ - 1))) {
        continue;
      }
      count += loss.counts[fold];
      const double* f = loss.fisher.data() + fold * all * all;
      for (Eigen::Index i = 0; i < width; ++i) {
        for (Eigen::Index j = 0; j < width; ++j) {
          h(i, j) += f[columns_[i] * all + columns_[j]];
        }
        if (expert != nullptr) {
          g(i) += loss.gradient[fold * all + columns_[i]];
        }
      }
    }
    const double scale = alpha * static_cast<double>(loss.num_examples) /
        static_cast<double>(count);
    sum.a += scale * h;
    if (expert != nullptr) {
      const auto groups = static_cast<Eigen::Index>(fisher_.groups.size());
      const auto own = static_cast<Eigen::Index>(*expert) * groups;
      sum.b += scale * (h.middleCols(own, groups).rowwise().sum() - g);
    }
  }

  const SubspaceFisher& fisher_;
  const std::vector<size_t>& experts_;
  const std::vector<double>& alphas_;
  std::vector<size_t> columns_; // of `fisher_`, that the experts have
  size_t folds_ = 0;
};

// The parts of a cross-validation, which no shrinkage changes.
struct Split {
  Quadratic others;
  Quadratic held_out;
};

std::vector<Split> split(const Problem& problem) {
  std::vector<Split> splits;
  for (size_t k = 0; k < problem.folds(); ++k) {
    splits.push_back(
        {problem.from([&](size_t fold) { return fold != k; }),
         problem.from([&](size_t fold) { return fold == k; })});
  }
  return splits;
}

// The objective on each fold of the minimum on all others.
std::vector<double> cross_validate(
    const std::vector<Split>& splits,
    double shrink) {
  std::vector<double> values;
  for (const auto& [others, held_out] : splits) {
    values.push_back(held_out.at(others.minimum(shrink)));
  }
  return values;
}

// Mean and standard error of x - y; without y, of x.
Estimate difference(
    const std::vector<double>& x,
    const std::vector<double>& y = {}) {
  const auto n = static_cast<double>(x.size());
  double sum = 0;
  double squares = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double d = x[i] - (y.empty() ? 0 : y[i]);
    sum += d;
    squares += d * d;
  }
  const double variance = std::max(0.0, squares / n - sum / n * (sum / n));
  return {sum / n, std::sqrt(variance / (n - 1))};
}

// The one-standard-error rule: the most regular solution that is not noticeably
// worse than the best. The folds are the same for all, so that the error is
// that of their differences.
double choose_shrink(const std::vector<Split>& splits) {
  std::vector<std::vector<double>> scores;
  size_t best = 0;
  for (const double candidate : kShrinks) {
    scores.push_back(cross_validate(splits, candidate));
    if (difference(scores.back()).value < difference(scores[best]).value) {
      best = scores.size() - 1;
    }
  }
  size_t chosen = best;
  for (size_t i = best + 1; i < scores.size(); ++i) {
    const Estimate worse = difference(scores[i], scores[best]);
    if (worse.value <= worse.standard_error) {
      chosen = i;
    }
  }
  return kShrinks[chosen];
}

} // namespace

SubspaceWeights solve_subspace(
    const SubspaceFisher& fisher,
    const std::vector<size_t>& experts,
    const std::vector<double>& alphas,
    double shrink) {
  if (std::ranges::all_of(experts, [&](size_t t) {
        return fisher.experts[t].is_direction();
      })) {
    throw InputError(
        "expected at least one expert with a loss in the subspace Fisher, got "
        "directions only");
  }
  const Problem problem(fisher, experts, alphas);
  std::optional<Estimate> expected;
  if (problem.folds() > 1) {
    const std::vector<Split> splits = split(problem);
    if (std::isnan(shrink)) {
      shrink = choose_shrink(splits);
    }
    expected = difference(cross_validate(splits, shrink));
  } else if (std::isnan(shrink)) {
    shrink = 0; // one fold leaves nothing to validate on
  }
  const Vector v = problem.from([](size_t) { return true; }).minimum(shrink);
  const auto examples_of = [](const SubspaceFisher::Loss& loss) {
    return std::reduce(loss.counts.begin(), loss.counts.end());
  };
  std::vector<bool> is_direction;
  int64_t examples = examples_of(fisher.base);
  for (const size_t t : experts) {
    is_direction.push_back(fisher.experts[t].is_direction());
    examples += examples_of(fisher.experts[t]);
  }
  return {
      .weights = {v.data(), v.data() + v.size()},
      .is_direction = std::move(is_direction),
      .examples = examples,
      .shrink = shrink,
      .expected = expected};
}

SubspaceWeights solve_subspace(
    const SubspaceFisher& fisher,
    const std::vector<size_t>& experts,
    const MethodInfo& method,
    const std::vector<const Settings*>& models,
    const Settings& merge,
    size_t output) {
  if (weights_are_auto(models, merge)) {
    return solve_subspace(
        fisher, experts, std::vector<double>(experts.size(), 1), kAuto);
  }
  std::vector<double> alphas;
  for (const Settings* model : models) {
    alphas.push_back(
        constant_parameter(method, "weight", {model, &merge}, output));
  }
  return solve_subspace(
      fisher,
      experts,
      alphas,
      constant_parameter(method, "shrink", {&merge}, output));
}

void check_no_weight(
    const SubspaceFisher::Loss& loss,
    const Settings& model,
    const std::string& label) {
  const auto weight = model.find("weight");
  if (loss.is_direction() && weight != model.end() &&
      !weight->second.has_auto()) {
    throw InputError(fmt::format(
        "{} is a direction of the subspace Fisher, and directions have no "
        "weight; remove it",
        label));
  }
}

std::optional<std::string> unstable(const SubspaceWeights& found) {
  if (!found.expected) {
    return std::nullopt;
  }
  if (found.examples < std::ssize(found.weights)) {
    return fmt::format(
        "the subspace Fisher has fewer examples than weights, {} and {}",
        found.examples,
        found.weights.size());
  }
  const auto& [value, error] = *found.expected;
  const bool moves = value != 0 || error != 0;
  if (!moves || value + error < 0) {
    return std::nullopt;
  }
  return "the subspace Fisher has too few examples for stable weights";
}

} // namespace merganser
