// merge_elements against the definitions in float64, for every method, type,
// number of models and size.

#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "merganser/io/dtype.h"
#include "merganser/recipe/methods.h"
#include "support/elements.h"
#include "support/merge_oracle.h"

namespace merganser::test {
namespace {

template <typename T>
std::vector<T> narrow(const Vector& values) {
  return {std::begin(values), std::end(values)};
}

template <typename T>
Elements<T> elements_of(const Problem& problem) {
  Elements<T> elements;
  elements.base = narrow<T>(problem.base);
  elements.base_fisher = narrow<T>(problem.base_fisher);
  for (size_t t = 0; t < problem.models.size(); ++t) {
    elements.models.push_back(narrow<T>(problem.models[t]));
    elements.fishers.push_back(narrow<T>(problem.fishers[t]));
    elements.weights.push_back(static_cast<T>(problem.weights[t]));
    elements.scales.push_back(static_cast<T>(problem.scales[t]));
  }
  elements.rhos.assign(problem.rhos.begin(), problem.rhos.end());
  elements.base_scale = static_cast<T>(problem.base_scale);
  elements.delta = static_cast<T>(problem.delta);
  return elements;
}

template <typename T>
void compare(
    MergeFormula method,
    size_t n,
    size_t count,
    const std::vector<double>& rhos = {}) {
  Problem problem = random_problem(n, count);
  problem.rhos = rhos;
  const Vector expected = oracle(method, problem);
  const std::vector<T> found = elements_of<T>(problem).merge(method);
  ASSERT_EQ(found.size(), n);
  // torch.testing.assert_close's for float32 and float64.
  const double relative = sizeof(T) == 4 ? 1.3e-6 : 1e-7;
  const double absolute = sizeof(T) == 4 ? 1e-5 : 1e-7;
  for (size_t i = 0; i < n; ++i) {
    ASSERT_NEAR(
        found[i], expected[i], absolute + relative * std::abs(expected[i]))
        << "formula " << static_cast<int>(method) << ", " << count
        << " models, element " << i << " of " << n;
  }
}

TEST(MergeElements, EqualTheDefinition) {
  for (int formula = 0; formula <= kLastFormula; ++formula) {
    for (size_t count : {1, 3, 5}) {
      for (size_t n : {0, 1, 3, 255, 256, 257, 65537}) {
        compare<float>(static_cast<MergeFormula>(formula), n, count);
        compare<double>(static_cast<MergeFormula>(formula), n, count);
      }
    }
  }
}

TEST(MergeElements, GradientMatchingTakesTheExpertsGradients) {
  for (const size_t n : {1, 257}) {
    const std::vector<double> rhos = {0, 1, 0.3, -0.2, 1.5};
    compare<float>(MergeFormula::kGradientMatching, n, 5, rhos);
    compare<double>(MergeFormula::kGradientMatching, n, 5, rhos);
  }
}

// rho 0 is Fisher averaging with the base, rho 1 gradient matching without rho,
// in every bit; without Fishers task arithmetic scaled by rho.
TEST(MergeElements, RhoHasItsLimits) {
  Elements<double> elements = elements_of<double>(random_problem(257, 3));
  const auto with = [&](MergeFormula formula, std::vector<double> rhos) {
    elements.rhos = std::move(rhos);
    return elements.merge(formula);
  };
  EXPECT_EQ(
      with(MergeFormula::kGradientMatching, {0, 0, 0}),
      with(MergeFormula::kFisherBase, {}));
  EXPECT_EQ(
      with(MergeFormula::kGradientMatching, {1, 1, 1}),
      with(MergeFormula::kGradientMatching, {}));
  Elements<double> none;
  none.base = {1};
  none.base_fisher = {0};
  none.models = {{3}, {5}};
  none.fishers = {{0}, {0}};
  none.weights = none.scales = {1, 1};
  none.rhos = {0.5, 0.25};
  EXPECT_EQ(none.merge(MergeFormula::kGradientMatching)[0], 1 + 1 + 1);
}

// Parameters stored as BFloat16 are converted, merged and rounded.
TEST(MergeElements, RoundToBFloat16) {
  const auto store = [](const std::vector<float>& values) {
    std::vector<BFloat16> stored(values.size());
    from_float32(
        DType::kBF16,
        values.data(),
        std::as_writable_bytes(std::span(stored)).data(),
        values.size());
    return stored;
  };
  const auto load = [](const std::vector<BFloat16>& stored) {
    std::vector<float> values(stored.size());
    to_float32(
        DType::kBF16,
        std::as_bytes(std::span(stored)).data(),
        values.data(),
        values.size());
    return values;
  };
  for (int formula = 0; formula <= kLastFormula; ++formula) {
    for (const size_t n : {0, 1, 15, 257}) {
      const auto method = static_cast<MergeFormula>(formula);
      Elements<float> wide = elements_of<float>(random_problem(n, 3));
      Elements<float, BFloat16> halves = {
          .base = store(wide.base),
          .base_fisher = wide.base_fisher,
          .models = {},
          .fishers = wide.fishers,
          .weights = wide.weights,
          .scales = wide.scales,
          .base_scale = wide.base_scale,
          .delta = wide.delta};
      for (auto& model : wide.models) {
        halves.models.push_back(store(model));
        model = load(halves.models.back());
      }
      wide.base = load(halves.base);
      EXPECT_EQ(load(halves.merge(method)), load(store(wide.merge(method))))
          << "formula " << formula << ", " << n << " elements";
      EXPECT_EQ(halves.clamped, wide.clamped);
    }
  }
}

TEST(MergeElements, CountClampedDenominators) {
  Elements<double> elements;
  elements.base = {0, 0, 0, 0};
  elements.base_fisher = {1, 1, 1, 0};
  elements.models = {{1, 1, 1, 1}};
  elements.fishers = {{0.1, 0.9, 2, 1}};
  elements.weights = {1};
  elements.scales = {1};
  const auto merged = elements.merge(MergeFormula::kRemoval);
  EXPECT_EQ(elements.clamped, 2);
  EXPECT_DOUBLE_EQ(merged[0], -1.1 / 0.9);
  EXPECT_DOUBLE_EQ(merged[1], -1.9 / (1 - 0.9));
  EXPECT_DOUBLE_EQ(elements.largest_weight, 1.9 / (1 - 0.9));
  for (int i = 2; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(merged[i], -1); // the weight is w_t
  }
}

TEST(MergeElements, CountFishersBelowTheFloor) {
  Elements<float> elements;
  elements.floor = 0.5f;
  for (int i = 0; i < 21; ++i) { // vectors and a rest
    elements.base.push_back(0);
    elements.base_fisher.push_back(i == 3 ? 0.f : 1.f);
  }
  elements.models = {elements.base, elements.base};
  elements.fishers = {elements.base, elements.base_fisher};
  elements.weights = elements.scales = {1, 1};
  elements.merge(MergeFormula::kEwr);
  EXPECT_EQ(elements.clamped, 21 + 2);
}

TEST(MergeElements, NanStaysNan) {
  const double nan = std::nan("");
  for (const MethodInfo* method : merge_methods()) {
    for (int place = 0; place < 4; ++place) {
      Elements<double> elements;
      elements.base = {1};
      elements.base_fisher = {1};
      elements.models = {{2}, {3}};
      elements.fishers = {{1}, {1}};
      elements.weights = elements.scales = {1, 1};
      double* const places[] = {
          elements.models[1].data(),
          elements.base.data(),
          elements.fishers[1].data(),
          elements.base_fisher.data()};
      const bool used[] = {
          true,
          method->needs_base && method->weights != WeightRule::kSlerp,
          method->needs_fishers,
          method->needs_base_fisher};
      *places[place] = nan;
      EXPECT_EQ(std::isnan(elements.merge(method->formula)[0]), used[place])
          << method->name << ", place " << place;
    }
  }
}

} // namespace
} // namespace merganser::test
