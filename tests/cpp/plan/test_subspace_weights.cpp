// The optimum in the span of task vectors, on quadratic losses in two
// dimensions that two task vectors span.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "merganser/io/yaml_value.h"
#include "merganser/plan/subspace_weights.h"
#include "merganser/recipe/methods.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

using Vec = std::array<double, 2>;
using Mat = std::array<Vec, 2>;

Vec operator*(const Mat& a, const Vec& x) {
  return {a[0][0] * x[0] + a[0][1] * x[1], a[1][0] * x[0] + a[1][1] * x[1]};
}

Mat sum(const Mat& a, double factor, const Mat& b) {
  Mat c = a;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      c[i][j] += factor * b[i][j];
    }
  }
  return c;
}

Vec solve(const Mat& a, const Vec& b) {
  const double det = a[0][0] * a[1][1] - a[0][1] * a[1][0];
  return {
      (b[0] * a[1][1] - a[0][1] * b[1]) / det,
      (a[0][0] * b[1] - a[1][0] * b[0]) / det};
}

double dot(const Vec& x, const Vec& y) {
  return x[0] * y[0] + x[1] * y[1];
}

Mat random_curvature(std::mt19937& random) {
  std::normal_distribution<double> normal;
  Mat a{};
  for (int row = 0; row < 5; ++row) {
    const Vec x = {normal(random), normal(random)};
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        a[i][j] += x[i] * x[j];
      }
    }
  }
  return a;
}

// One group, so that the columns are the task vectors. Each of two folds has
// half of the examples and the same mean.
SubspaceFisher::Loss loss_of(
    const Mat& h,
    const Vec& gradient,
    const std::vector<Vec>& taus,
    int64_t num_examples) {
  SubspaceFisher::Loss loss;
  loss.num_examples = num_examples;
  loss.counts = {3, 3};
  const double scale = 3.0 / static_cast<double>(num_examples);
  for (int fold = 0; fold < 2; ++fold) {
    for (const Vec& a : taus) {
      loss.gradient.push_back(scale * dot(a, gradient));
      for (const Vec& b : taus) {
        loss.fisher.push_back(scale * dot(a, h * b));
      }
    }
  }
  return loss;
}

// Experts trained with rho times the proximal term, with weights alpha.
void expect_joint_optimum(double rho) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  const Mat h0 = random_curvature(random);
  const Vec alphas = {0.7, 1.3};
  std::vector<Mat> h;
  std::vector<Vec> taus; // theta_0 = 0
  std::vector<Vec> gradients;
  Mat total = h0;
  Vec moment{};
  for (int t = 0; t < 2; ++t) {
    h.push_back(random_curvature(random));
    const Vec mean = {normal(random), normal(random)};
    const Vec pull = h[t] * mean;
    taus.push_back(solve(sum(h[t], rho, h0), pull));
    const Vec at = h[t] * taus[t];
    gradients.push_back({at[0] - pull[0], at[1] - pull[1]});
    total = sum(total, alphas[t], h[t]);
    for (int i = 0; i < 2; ++i) {
      moment[i] += alphas[t] * pull[i];
    }
  }
  SubspaceFisher fisher;
  fisher.groups = {{"all", {}}};
  fisher.base = loss_of(h0, {}, taus, 40);
  for (int t = 0; t < 2; ++t) {
    fisher.experts.push_back(loss_of(h[t], gradients[t], taus, 10 * (t + 1)));
  }
  const SubspaceWeights found =
      solve_subspace(fisher, {0, 1}, {alphas[0], alphas[1]}, 0);
  const Vec expected = solve(total, moment);
  for (int i = 0; i < 2; ++i) {
    const double merged =
        found.weights[0] * taus[0][i] + found.weights[1] * taus[1][i];
    EXPECT_NEAR(merged, expected[i], 1e-10) << rho;
  }
  ASSERT_TRUE(found.expected);
  EXPECT_LT(found.expected->value, 0);
  EXPECT_NEAR(found.expected->standard_error, 0, 1e-9); // equal folds
  // Without noise nothing is gained by shrinking.
  EXPECT_EQ(
      solve_subspace(fisher, {0, 1}, {alphas[0], alphas[1]}, kAuto).shrink, 0);
}

TEST(SubspaceWeights, AreTheJointOptimumWhateverTheExpertsTraining) {
  expect_joint_optimum(0);
  expect_joint_optimum(0.5);
  expect_joint_optimum(1);
}

// The columns of an expert add up, in every fold.
TEST(SubspaceWeights, OneGroupHasTheSumsOverTheColumns) {
  constexpr size_t kExperts = 2;
  constexpr size_t kGroups = 3;
  constexpr size_t kFolds = 2;
  constexpr size_t kColumns = kExperts * kGroups;
  SubspaceFisher fisher;
  fisher.groups = {{"a", {"t0"}}, {"b", {"t1", "t2"}}, {"c", {"t3"}}};
  std::mt19937 random(11);
  std::normal_distribution<double> normal;
  const auto fill = [&](std::vector<double>& values, size_t n) {
    values.resize(n);
    std::ranges::generate(values, [&] { return normal(random); });
  };
  fisher.base.counts = {3, 4};
  fill(fisher.base.fisher, kFolds * kColumns * kColumns);
  fisher.experts.resize(kExperts);
  for (SubspaceFisher::Loss& expert : fisher.experts) {
    expert.counts = {3, 4};
    fill(expert.fisher, kFolds * kColumns * kColumns);
    fill(expert.gradient, kFolds * kColumns);
  }
  const SubspaceFisher one = fisher.as_one_group();
  EXPECT_EQ(one.columns(), kExperts);
  EXPECT_EQ(
      one.groups.at(0).tensors,
      (std::vector<std::string>{"t0", "t1", "t2", "t3"}));
  const auto& from = fisher.experts[1];
  const auto& to = one.experts[1];
  ASSERT_EQ(to.fisher.size(), kFolds * kExperts * kExperts);
  ASSERT_EQ(to.gradient.size(), kFolds * kExperts);
  for (size_t fold = 0; fold < kFolds; ++fold) {
    for (size_t s = 0; s < kExperts; ++s) {
      double gradient = 0;
      for (size_t g = 0; g < kGroups; ++g) {
        gradient += from.gradient[fold * kColumns + s * kGroups + g];
      }
      EXPECT_NEAR(to.gradient[fold * kExperts + s], gradient, 1e-12);
      for (size_t t = 0; t < kExperts; ++t) {
        double sum = 0;
        for (size_t g = 0; g < kGroups; ++g) {
          for (size_t h = 0; h < kGroups; ++h) {
            const size_t row = fold * kColumns + s * kGroups + g;
            sum += from.fisher[row * kColumns + t * kGroups + h];
          }
        }
        EXPECT_NEAR(
            to.fisher[(fold * kExperts + s) * kExperts + t], sum, 1e-12);
      }
    }
  }
  EXPECT_EQ(one.base.fisher.size(), kFolds * kExperts * kExperts);
  EXPECT_TRUE(one.base.gradient.empty());
}

// Two columns of two experts; `off` is the base's off-diagonal in each fold.
SubspaceFisher two_columns(const Vec& off) {
  SubspaceFisher fisher;
  fisher.groups = {{"all", {}}};
  fisher.base.num_examples = 2;
  fisher.base.counts = {1, 1};
  for (const double x : off) {
    fisher.base.fisher.insert(fisher.base.fisher.end(), {1, x, x, 1});
  }
  for (int t = 0; t < 2; ++t) {
    SubspaceFisher::Loss expert;
    expert.num_examples = 2;
    expert.counts = {1, 1};
    for (int fold = 0; fold < 2; ++fold) {
      expert.fisher.insert(
          expert.fisher.end(), {t == 0 ? 1.0 : 0.0, 0, 0, t == 1 ? 1.0 : 0.0});
      expert.gradient.insert(expert.gradient.end(), {0, 0});
    }
    fisher.experts.push_back(std::move(expert));
  }
  return fisher;
}

// One expert in two dimensions, with a direction.
struct Direction {
  explicit Direction(const Vec& along) : direction(along) {
    std::mt19937 random(13);
    const Mat h0 = random_curvature(random);
    const Mat h = random_curvature(random);
    fisher.groups = {{"all", {}}};
    fisher.base = loss_of(h0, {}, {tau, direction}, 40);
    fisher.experts = {loss_of(h, {}, {tau, direction}, 20), {}};
    const Vec pull = h * tau; // of an expert trained to its optimum
    optimum = solve(sum(h0, kAlpha, h), {kAlpha * pull[0], kAlpha * pull[1]});
    in_span = kAlpha * dot(tau, pull) / dot(tau, sum(h0, kAlpha, h) * tau);
  }

  Vec merged(double alpha_of_direction) const {
    const SubspaceWeights found =
        solve_subspace(fisher, {0, 1}, {kAlpha, alpha_of_direction}, 0);
    EXPECT_EQ(found.is_direction, (std::vector<bool>{false, true}));
    const auto& w = found.weights;
    return {
        w[0] * tau[0] + w[1] * direction[0],
        w[0] * tau[1] + w[1] * direction[1]};
  }

  static constexpr double kAlpha = 1.3;
  Vec tau = {0.6, -1.1};
  Vec direction;
  SubspaceFisher fisher;
  Vec optimum{};
  double in_span = 0; // the optimum among the multiples of tau
};

TEST(SubspaceWeights, DirectionsSpanWhatTaskVectorsDoNot) {
  const Direction problem({0.3, 0.8});
  for (const double alpha : {0.0, 1.0, 5.0}) { // not used: there is no loss
    const Vec merged = problem.merged(alpha);
    EXPECT_NEAR(merged[0], problem.optimum[0], 1e-10);
    EXPECT_NEAR(merged[1], problem.optimum[1], 1e-10);
  }
}

TEST(SubspaceWeights, ADirectionThatDependsOnTheTaskVectorsChangesNothing) {
  const Direction problem({1.2, -2.2}); // twice the task vector
  const Vec merged = problem.merged(0);
  EXPECT_NEAR(merged[0], problem.in_span * problem.tau[0], 1e-10);
  EXPECT_NEAR(merged[1], problem.in_span * problem.tau[1], 1e-10);
}

TEST(SubspaceWeights, ADirectionHasNoWeight) {
  const Direction problem({0.3, 0.8});
  const MethodInfo& method = find_method("subspace_gradient_matching");
  const YamlValue zero = YamlValue::parse("0", "recipe.yaml");
  const Settings weight = {
      {"weight", Setting::parse(zero, *method.find_parameter("weight"))}};
  check_no_weight(problem.fisher.experts[0], weight, "a");
  check_no_weight(problem.fisher.experts[1], {}, "b");
  test::expect_error<InputError>(
      [&] { check_no_weight(problem.fisher.experts[1], weight, "b"); },
      {"b is a direction of the subspace Fisher, and directions have no "
       "weight; remove it"});
  test::expect_error<InputError>(
      [&] { solve_subspace(problem.fisher, {1}, {1}, 0); },
      {"directions only"});
}

TEST(SubspaceWeights, OffDiagonalsThatAreNoiseAreShrunk) {
  const SubspaceFisher fisher = two_columns({1.9, -1.9});
  const SubspaceWeights found = solve_subspace(fisher, {0, 1}, {1, 1}, kAuto);
  EXPECT_EQ(found.shrink, 1);
  // (1 + 1) v = 1 on the diagonal
  EXPECT_NEAR(found.weights[0], 0.5, 1e-12);
  EXPECT_NEAR(found.weights[1], 0.5, 1e-12);
}

TEST(SubspaceWeights, AreUnstableWithFewerExamplesThanWeights) {
  SubspaceWeights found;
  found.weights = {0.5, 0.5};
  found.examples = 2;
  found.expected = Estimate{-1, 0.1};
  EXPECT_EQ(unstable(found), std::nullopt);
  found.examples = 1;
  EXPECT_EQ(
      unstable(found),
      "the subspace Fisher has fewer examples than weights, 1 and 2");
  found.examples = 2;
  found.expected = Estimate{-1, 2};
  EXPECT_EQ(
      unstable(found),
      "the subspace Fisher has too few examples for stable weights");
}

// Diagonal Fishers, whose losses have one fold each.
SubspaceFisher one_fold() {
  SubspaceFisher fisher;
  fisher.groups = {{"all", {}}};
  fisher.base = {
      .model_hash = "",
      .num_examples = 6,
      .counts = {2},
      .fisher = {2, 1, 1, 3},
      .gradient = {}};
  fisher.experts = {
      {.model_hash = "",
       .num_examples = 4,
       .counts = {4},
       .fisher = {5, -2, -2, 7},
       .gradient = {0, 0}},
      {.model_hash = "",
       .num_examples = 3,
       .counts = {1},
       .fisher = {1, 0.5, 0.5, 4},
       .gradient = {0, 0}}};
  return fisher;
}

TEST(SubspaceWeights, OneFoldIsSolvedWithoutCrossValidation) {
  const SubspaceFisher fisher = one_fold();
  fisher.check();
  EXPECT_TRUE(fisher.is_of_diagonals());
  for (const double shrink : {kAuto, 0.0, 0.25}) {
    const SubspaceWeights found =
        solve_subspace(fisher, {0, 1}, {2, 0.5}, shrink);
    const double kept = shrink == 0.25 ? 0.75 : 1;
    EXPECT_EQ(found.shrink, 1 - kept);
    EXPECT_EQ(found.expected, std::nullopt);
    EXPECT_EQ(found.examples, 7);
    // H = alpha N / n times the sums: 3, 2 and 1.5 of the three losses.
    const double off = kept * (3 * 1 + 2 * -2 + 1.5 * 0.5);
    const Vec expected = solve(
        {{{3 * 2 + 2 * 5 + 1.5 * 1, off}, {off, 3 * 3 + 2 * 7 + 1.5 * 4}}},
        {2 * 5 + 1.5 * 0.5, 2 * -2 + 1.5 * 4});
    EXPECT_NEAR(found.weights[0], expected[0], 1e-12);
    EXPECT_NEAR(found.weights[1], expected[1], 1e-12);
  }
}

TEST(SubspaceWeights, AreNotUnstableWithoutCrossValidation) {
  SubspaceWeights found;
  found.weights = {0.5, 0.5};
  found.examples = 1;
  EXPECT_EQ(unstable(found), std::nullopt);
}

TEST(SubspaceWeights, AllLossesHaveOneFoldOrNone) {
  SubspaceFisher fisher = one_fold();
  fisher.experts[1].counts = {1, 1};
  fisher.experts[1].fisher.resize(8);
  fisher.experts[1].gradient.resize(4);
  test::expect_error<InputError>(
      [&] { fisher.check(); },
      {"at least two folds with an example each, or one fold for each loss"});
}

TEST(SubspaceWeights, OneOfTheExperts) {
  const SubspaceFisher all = two_columns({0.3, 0.3});
  int64_t examples = 0;
  for (const SubspaceFisher::Loss* loss : {&all.base, &all.experts[1]}) {
    for (const int64_t count : loss->counts) {
      examples += count;
    }
  }
  EXPECT_EQ(solve_subspace(all, {1}, {1}, 0).examples, examples);
  const SubspaceFisher fisher = two_columns({0.3, 0.3});
  const SubspaceWeights found = solve_subspace(fisher, {1}, {3}, 0);
  ASSERT_EQ(found.weights.size(), 1U);
  EXPECT_NEAR(found.weights[0], 3.0 / 4.0, 1e-12); // (1 + 3) v = 3
}

TEST(SubspaceWeights, AColumnThatMovesNothingHasWeightZero) {
  SubspaceFisher fisher = two_columns({0, 0});
  for (SubspaceFisher::Loss* loss : {&fisher.base, &fisher.experts[1]}) {
    loss->fisher[3] = loss->fisher[7] = 0;
  }
  const SubspaceWeights found = solve_subspace(fisher, {0, 1}, {1, 1}, kAuto);
  EXPECT_EQ(found.weights[1], 0);
  EXPECT_NEAR(found.weights[0], 0.5, 1e-12);
}

} // namespace
} // namespace merganser
