// Properties of the formulas that docs/method.md states, element by element.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "merganser/recipe/methods.h"
#include "support/elements.h"

namespace merganser::test {
namespace {

constexpr MergeFormula kGm = MergeFormula::kGradientMatching;

Elements<float> random_elements(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> exponent(-20, 2);
  constexpr int kSize = 1000;
  Elements<float> elements;
  const auto parameters = [&] {
    std::vector<float> values(kSize);
    for (float& x : values) {
      x = normal(random);
    }
    return values;
  };
  const auto fisher = [&] {
    std::vector<float> values(kSize);
    for (float& x : values) {
      x = std::pow(10.f, exponent(random));
    }
    return values;
  };
  elements.base = parameters();
  elements.base_fisher = fisher();
  for (int t = 0; t < count; ++t) {
    elements.models.push_back(parameters());
    // Task vectors are small, as those of fine-tuning.
    for (int i = 0; i < kSize; ++i) {
      float& x = elements.models[t][i];
      x = elements.base[i] * (1 + 0.1f * std::tanh(x));
    }
    elements.fishers.push_back(fisher());
    elements.weights.push_back(1);
    elements.scales.push_back(1000.f * static_cast<float>(t + 1));
  }
  elements.base_scale = 5000;
  elements.delta = 1e-12f;
  return elements;
}

TEST(MergeFacts, OneModelComesBackAsItIs) {
  auto elements = random_elements(1, 1);
  EXPECT_EQ(elements.merge(kGm), elements.models[0]);
  EXPECT_EQ(elements.merge(MergeFormula::kFisher), elements.models[0]);
  EXPECT_EQ(elements.merge(MergeFormula::kLinear), elements.models[0]);
  EXPECT_EQ(elements.merge(MergeFormula::kTaskArithmetic), elements.models[0]);
  for (float& f : elements.fishers[0]) {
    f *= 1e-30f; // far below what float32 could hold in a product
  }
  EXPECT_EQ(elements.merge(kGm), elements.models[0]);
  EXPECT_EQ(elements.merge(MergeFormula::kFisher), elements.models[0]);
}

TEST(MergeFacts, WithoutFishersOfTasksItIsTaskArithmetic) {
  auto elements = random_elements(3, 2);
  for (auto& fisher : elements.fishers) {
    std::fill(fisher.begin(), fisher.end(), 0.f);
  }
  const auto expected = elements.merge(MergeFormula::kTaskArithmetic);
  EXPECT_EQ(elements.merge(kGm), expected);
  // All Fishers zero, and delta too: the limit is the same.
  std::fill(elements.base_fisher.begin(), elements.base_fisher.end(), 0.f);
  EXPECT_EQ(elements.merge(kGm), expected);
  elements.delta = 0;
  EXPECT_EQ(elements.merge(kGm), expected);
}

TEST(MergeFacts, WithoutFisherOfTheBaseItIsFisherAveraging) {
  auto elements = random_elements(3, 3);
  std::fill(elements.base_fisher.begin(), elements.base_fisher.end(), 0.f);
  elements.delta = 0;
  const auto expected = elements.merge(MergeFormula::kFisher);
  for (MergeFormula method : {kGm, MergeFormula::kFisherBase}) {
    const auto found = elements.merge(method);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_NEAR(found[i], expected[i], 1.3e-6 * std::abs(expected[i]) + 1e-5);
    }
  }
}

TEST(MergeFacts, EqualFishersGiveEqualWeights) {
  // 2c / (c + Tc), whatever c is.
  for (const double c : {1e-25, 3.0}) {
    Elements<double> elements;
    elements.base = {0};
    elements.base_fisher = {c};
    elements.models = {{1}, {10}, {100}};
    elements.fishers = {{c}, {c}, {c}};
    elements.weights = elements.scales = {1, 1, 1};
    EXPECT_DOUBLE_EQ(elements.merge(kGm)[0], 111 * 2.0 / 4);
  }
}

TEST(MergeFacts, WeightsOnlyEverShrink) {
  for (const float alpha : {0.3f, 1.f}) {
    auto elements = random_elements(3, 4);
    elements.weights.assign(3, alpha);
    const size_t n = elements.base.size();
    for (int t = 0; t < 3; ++t) {
      // Only model t differs from the base, by 1: the result is its weight.
      for (int s = 0; s < 3; ++s) {
        elements.models[s].assign(n, s == t ? 1.f : 0.f);
      }
      elements.base.assign(n, 0);
      for (const float weight : elements.merge(kGm)) {
        EXPECT_GE(weight, 0);
        EXPECT_LE(weight, 1 + std::numeric_limits<float>::epsilon());
      }
    }
  }
}

TEST(MergeFacts, LargeWeightsSaturateAtFisherAveraging) {
  Elements<double> elements;
  elements.base = {1};
  elements.base_fisher = {0};
  elements.models = {{2}, {5}};
  elements.fishers = {{1}, {3}};
  elements.scales = {1, 1};
  elements.delta = 1;
  elements.weights = {1e12, 1e12};
  // The base's share of the denominator is gone: weights (H_0 + H_t) / sum H.
  EXPECT_NEAR(elements.merge(kGm)[0], 1 + (2 * 1.0 + 4 * 4.0) / 4, 1e-9);
}

TEST(MergeFacts, FisherAveragingOfUnseenCoordinatesIsTheWeightedMean) {
  Elements<double> elements;
  elements.models = {{1}, {4}};
  elements.fishers = {{0}, {0}};
  elements.scales = {10, 20};
  elements.weights = {1, 3};
  EXPECT_DOUBLE_EQ(
      elements.merge(MergeFormula::kFisher)[0], (1 * 1.0 + 3 * 4.0) / 4);
}

TEST(MergeFacts, RowSeenByOneTaskKeepsItsUpdate) {
  Elements<double> elements;
  elements.base = {1};
  elements.base_fisher = {0};
  elements.models = {{1.5}, {1}}; // the other has not moved
  elements.fishers = {{1e-6}, {0}};
  elements.weights = elements.scales = {1, 1};
  elements.delta = 1e-12;
  EXPECT_NEAR(elements.merge(kGm)[0], 1.5, 1e-12);
}

TEST(MergeFacts, UnseenCoordinateStaysTheBasesInFisherBase) {
  Elements<double> elements;
  elements.base = {1};
  elements.base_fisher = {0};
  elements.models = {{2}, {3}};
  elements.fishers = {{0}, {0}};
  elements.weights = elements.scales = {1, 1};
  for (const double delta : {0.0, 1e-12}) {
    elements.delta = delta;
    EXPECT_EQ(elements.merge(MergeFormula::kFisherBase)[0], 1);
  }
}

TEST(MergeFacts, RemovalUndoesAMerge) {
  // theta_1 = argmin l(theta) + H_0 / 2 (theta - theta_0)^2 for the quadratic
  // l(theta) = H / 2 (theta - mu)^2; merging it gives the joint optimum, and
  // removing the same data from there gives theta_0 back.
  const double h0 = 3, h = 2, mu = 5, theta0 = 1;
  const auto fine_tune = [&](double from, double precision) {
    return (h * mu + precision * from) / (h + precision);
  };
  Elements<double> elements;
  elements.base = {theta0};
  elements.base_fisher = {h0};
  elements.models = {{fine_tune(theta0, h0)}};
  elements.fishers = {{h}};
  elements.weights = elements.scales = {1};
  const double joint = elements.merge(kGm)[0];
  EXPECT_NEAR(joint, (h0 * theta0 + h * mu) / (h0 + h), 1e-14);

  elements.base = {joint};
  elements.base_fisher = {h0 + h};
  elements.models = {{fine_tune(joint, h0 + h)}};
  EXPECT_NEAR(elements.merge(MergeFormula::kRemoval)[0], theta0, 1e-14);
  EXPECT_EQ(elements.clamped, 0);
}

// The default clamp is exact up to 90 % of the coordinate's curvature.
TEST(MergeFacts, RemovalIsExactWhereMostOfTheCurvatureGoes) {
  const double rest = 1, rest_optimum = 1, mu = 5;
  for (const double share : {0.1, 0.6, 5.0 / 6, 0.9}) {
    const double h = rest * share / (1 - share);
    const double h0 = rest + h;
    const double joint = (rest * rest_optimum + h * mu) / h0;
    Elements<double> elements;
    elements.clamp = find_method("removal").fallback("clamp");
    elements.base = {joint};
    elements.base_fisher = {h0};
    elements.models = {{(h * mu + h0 * joint) / (h + h0)}};
    elements.fishers = {{h}};
    elements.weights = elements.scales = {1};
    EXPECT_NEAR(elements.merge(MergeFormula::kRemoval)[0], rest_optimum, 1e-12)
        << share;
    EXPECT_EQ(elements.clamped, 0);
  }
}

// A base whose Fisher does not contain the removed data's.
TEST(MergeFacts, RemovalOfWhatTheBaseLacksIsTaskNegation) {
  Elements<double> elements;
  elements.base = {1, 1, 1};
  elements.base_fisher = {0, 1, 1e-9};
  elements.models = {{3, 3, 3}};
  elements.fishers = {{1, 1, 5}};
  elements.weights = {0.99999};
  elements.scales = {1};
  elements.delta = 1e-12;
  for (const double merged : elements.merge(MergeFormula::kRemoval)) {
    EXPECT_DOUBLE_EQ(merged, 1 - 0.99999 * 2);
  }
  EXPECT_EQ(elements.clamped, 3);
  EXPECT_DOUBLE_EQ(elements.largest_weight, 0.99999);
}

// The sum 0 elects the sign +1, as in mergekit.
TEST(MergeFacts, AnExactTieElectsThePositiveSign) {
  Elements<double> elements;
  elements.base = {10, 10};
  elements.models = {{1, -2}, {-3, 6}}; // task vectors
  elements.weights = {3, 1};
  elements.lambda = 2;
  for (const bool normalize : {false, true}) {
    elements.normalize = normalize;
    const auto merged = elements.merge(MergeFormula::kSignElection);
    EXPECT_EQ(merged[0], 10 + 2 * 3.0 / (normalize ? 3 : 1));
    EXPECT_EQ(merged[1], 10 + 2 * 6.0);
  }
}

TEST(MergeFacts, ElasticWeightRemovalWithoutTasksIsTheBase) {
  auto elements = random_elements(2, 5);
  elements.weights = {0, 0};
  EXPECT_EQ(elements.merge(MergeFormula::kEwr), elements.base);
}

} // namespace
} // namespace merganser::test
