// The merge equals joint training on ridge regression with full curvature
// matrices: merge_element itself, with matrices as its scalars.

#include <gtest/gtest.h>

#include <random>

#include "matrix.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser::test {
namespace {

constexpr int kDim = 6;
constexpr int kTasks = 3;
constexpr double kDelta = 0.1; // weight decay of the base
using M = Matrix<kDim>;

// The data of a least squares problem: loss 1/2 |y - X theta|^2, with its
// Hessian X^T X and X^T y.
struct Data {
  M hessian;
  M moment;
  double count = 0;

  M mean_fisher() const { // F, with H = N F
    return hessian * (1 / count);
  }
  friend Data operator+(const Data& a, const Data& b) {
    return {a.hessian + b.hessian, a.moment + b.moment, a.count + b.count};
  }
  friend Data operator*(double weight, const Data& a) {
    return {weight * a.hessian, weight * a.moment, weight * a.count};
  }
};

Data random_data(std::mt19937& random, int rows) {
  std::normal_distribution<double> normal;
  Data data;
  data.count = rows;
  for (int row = 0; row < rows; ++row) {
    double x[kDim];
    for (double& value : x) {
      value = normal(random);
    }
    const double y = 3 * normal(random);
    for (int i = 0; i < kDim; ++i) {
      data.moment.a[i][0] += x[i] * y;
      for (int j = 0; j < kDim; ++j) {
        data.hessian.a[i][j] += x[i] * x[j];
      }
    }
  }
  return data;
}

// argmin of the loss + 1/2 |theta - center|^2_precision
M train(const Data& data, const M& center, const M& precision) {
  return M::solve(data.hessian + precision, data.moment + precision * center);
}

template <MergeFormula Method>
M merge(
    const M& base,
    const Data& base_data,
    const M* models,
    const Data* tasks,
    int count,
    double alpha,
    int& clamped) {
  M weights[kTasks], scales[kTasks];
  for (int t = 0; t < count; ++t) {
    weights[t] = alpha;
    scales[t] = tasks[t].count;
  }
  const MergeScalars<M> scalars = {
      .count = count,
      .weights = weights,
      .scales = scales,
      .base_scale = base_data.count,
      .delta = kDelta,
      .clamp = 1e-6};
  struct {
    int& count;
    void clamped(bool mask) {
      count += mask;
    }
    void weight(const M&) {}
  } watch{clamped};
  return merge_element<Method>(
      scalars,
      base,
      base_data.mean_fisher(),
      [&](int t) { return models[t]; },
      [&](int t) { return tasks[t].mean_fisher(); },
      watch);
}

void expect_near(const M& found, const M& expected) {
  for (int i = 0; i < kDim; ++i) {
    EXPECT_NEAR(found.a[i][0], expected.a[i][0], 1e-10);
  }
}

struct Ridge : ::testing::Test {
  std::mt19937 random{1};
  Data base_data = random_data(random, 50);
  Data tasks[kTasks] = {
      random_data(random, 20),
      random_data(random, 4),
      random_data(random, 9)};
  M base = train(base_data, 0.0, kDelta);
  M h0 = base_data.hessian + kDelta;
  int clamped = 0;
};

TEST_F(Ridge, GradientMatchingEqualsJointTraining) {
  for (const double alpha : {1.0, 0.5}) {
    M models[kTasks];
    Data joint = base_data;
    for (int t = 0; t < kTasks; ++t) {
      models[t] = train(tasks[t], base, h0); // from the base, H_0-proximal
      joint = joint + alpha * tasks[t];
    }
    expect_near(
        merge<MergeFormula::kGradientMatching>(
            base, base_data, models, tasks, kTasks, alpha, clamped),
        train(joint, 0.0, kDelta));
  }
}

// Fisher averaging with the base as one more model is exact without the
// proximal term.
TEST_F(Ridge, FisherBaseEqualsJointTrainingOfConvergedModels) {
  M models[kTasks];
  Data joint = base_data;
  for (int t = 0; t < kTasks; ++t) {
    tasks[t] = random_data(random, 3 * kDim); // enough for a unique optimum
    models[t] = train(tasks[t], 0.0, 0.0);
    joint = joint + tasks[t];
  }
  expect_near(
      merge<MergeFormula::kFisherBase>(
          base, base_data, models, tasks, kTasks, 1, clamped),
      train(joint, 0.0, kDelta));
}

TEST_F(Ridge, RemovalEqualsTrainingWithoutTheData) {
  const Data rest = base_data;
  base_data = rest + tasks[0];
  base = train(base_data, 0.0, kDelta);
  const M model = train(tasks[0], base, base_data.hessian + kDelta);
  expect_near(
      merge<MergeFormula::kRemoval>(
          base, base_data, &model, tasks, 1, 1, clamped),
      train(rest, 0.0, kDelta));
  EXPECT_EQ(clamped, 0);
}

} // namespace
} // namespace merganser::test
