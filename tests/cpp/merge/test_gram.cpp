// merge_with_grams against the definitions of docs/method.md, section 2, solved
// by Gauss's elimination.

#include "merganser/merge/gram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "memory_plan.h"
#include "support/expect_error.h"

namespace merganser::test {
namespace {

using Numbers = std::vector<double>; // row-major

struct Layer {
  int64_t rows;
  int64_t columns;
  std::vector<Numbers> weights; // base first, if there is one
  std::vector<Numbers> grams; // likewise
  Numbers num_examples; // likewise
};

Numbers random_numbers(std::mt19937& random, int64_t n) {
  std::normal_distribution<double> normal;
  Numbers values(n);
  for (double& x : values) {
    x = normal(random);
  }
  return values;
}

// The mean of a a^T over `tokens` random inputs.
Numbers random_gram(std::mt19937& random, int64_t n, int tokens) {
  Numbers gram(n * n);
  for (int token = 0; token < tokens; ++token) {
    const Numbers a = random_numbers(random, n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        gram[i * n + j] += a[i] * a[j] / tokens;
      }
    }
  }
  return gram;
}

Layer random_layer(
    int64_t rows,
    int64_t columns,
    size_t count,
    int tokens = 100) {
  std::mt19937 random(static_cast<unsigned>(rows + 10 * count));
  Layer layer = {rows, columns, {}, {}, {}};
  for (size_t k = 0; k < count; ++k) {
    layer.weights.push_back(random_numbers(random, rows * columns));
    layer.grams.push_back(random_gram(random, columns, tokens));
    layer.num_examples.push_back(50.0 * static_cast<double>(k + 1));
  }
  return layer;
}

struct Solver {
  std::string method = "regmean";
  Numbers weights;
  double off_diagonal = 0.9;
  double ridge = 0.01;

  bool has_base() const {
    return method == "block_gradient_matching";
  }

  MemoryPlan plan(const Layer& layer) const {
    MemoryPlan memory(method, {layer.rows, layer.columns});
    for (size_t k = 0; k < layer.weights.size(); ++k) {
      memory.add_source("weights", layer.weights[k]);
      memory.add_gram("grams", layer.grams[k], layer.num_examples[k]);
    }
    memory.plan.num_models = weights.size();
    TensorParameters& p = memory.plan.parameters[0];
    p.weights = weights;
    p.off_diagonal = off_diagonal;
    p.ridge = ridge;
    return memory;
  }

  Numbers merge(const Layer& layer, int threads = 2) const {
    return merge_with_grams(plan(layer).plan, 0, threads);
  }
};

Numbers product(const Numbers& x, const Numbers& y, int64_t n) {
  Numbers result(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = 0; k < n; ++k) {
        result[row + j] += x[row + k] * y[k * n + j];
      }
    }
  }
  return result;
}

void add(double factor, const Numbers& from, Numbers& to) {
  for (size_t i = 0; i < to.size(); ++i) {
    to[i] += factor * from[i];
  }
}

// x matrix^-1, row by row: z matrix = x means matrix^T z^T = x^T.
Numbers divide(const Numbers& x, const Numbers& matrix, int64_t n) {
  Numbers result;
  for (size_t row = 0; row < x.size(); row += n) {
    std::vector<Numbers> a(n, Numbers(n + 1));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        a[i][j] = matrix[j * n + i];
      }
      a[i][n] = x[row + i];
    }
    for (int64_t k = 0; k < n; ++k) {
      const auto pivot = std::max_element(
          a.begin() + k, a.end(), [&](const Numbers& p, const Numbers& q) {
            return std::abs(p[k]) < std::abs(q[k]);
          });
      std::swap(a[k], *pivot);
      for (int64_t i = 0; i < n; ++i) {
        if (i != k) {
          add(-a[i][k] / a[k][k], a[k], a[i]);
        }
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      result.push_back(a[i][n] / a[i][i]);
    }
  }
  return result;
}

double mean_diagonal(const Numbers& matrix, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += matrix[i * n + i] / static_cast<double>(n);
  }
  return sum;
}

// G = N times the mean, elements off the diagonal times `factor`.
Numbers scaled_gram(const Layer& layer, size_t k, double factor) {
  Numbers gram = layer.grams[k];
  for (int64_t i = 0; i < std::ssize(gram); ++i) {
    const bool diagonal = i / layer.columns == i % layer.columns;
    gram[i] *= layer.num_examples[k] * (diagonal ? 1 : factor);
  }
  return gram;
}

void add_to_diagonal(double x, Numbers& matrix, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    matrix[i * n + i] += x;
  }
}

// (sum w W G) (sum w G)^-1 with G + r I for every G.
Numbers regmean(const Layer& layer, const Solver& solver) {
  const int64_t n = layer.columns;
  std::vector<Numbers> grams;
  Numbers total(n * n);
  double sum = 0;
  for (size_t t = 0; t < layer.grams.size(); ++t) {
    grams.push_back(scaled_gram(layer, t, solver.off_diagonal));
    add(solver.weights[t], grams[t], total);
    sum += solver.weights[t];
  }
  const double ridge = solver.ridge * mean_diagonal(total, n) / sum;
  Numbers numerator(layer.weights[0].size());
  std::ranges::fill(total, 0);
  for (size_t t = 0; t < grams.size(); ++t) {
    add_to_diagonal(ridge, grams[t], n);
    add(solver.weights[t], grams[t], total);
    add(solver.weights[t], product(layer.weights[t], grams[t], n), numerator);
  }
  return divide(numerator, total, n);
}

// W_0 + (sum w (W - W_0) (G_0 + G)) (G_0 + sum w G)^-1 with G_0 + r I.
Numbers gradient_matching(const Layer& layer, const Solver& solver) {
  const int64_t n = layer.columns;
  Numbers base_gram = scaled_gram(layer, 0, 1);
  Numbers total = base_gram;
  for (size_t t = 0; t < solver.weights.size(); ++t) {
    add(solver.weights[t], scaled_gram(layer, t + 1, 1), total);
  }
  const double ridge = solver.ridge * mean_diagonal(total, n);
  add_to_diagonal(ridge, total, n);
  add_to_diagonal(ridge, base_gram, n);
  Numbers numerator(layer.weights[0].size());
  for (size_t t = 0; t < solver.weights.size(); ++t) {
    Numbers update = layer.weights[t + 1];
    add(-1, layer.weights[0], update);
    Numbers gram = scaled_gram(layer, t + 1, 1);
    add(1, base_gram, gram);
    add(solver.weights[t], product(update, gram, n), numerator);
  }
  Numbers merged = divide(numerator, total, n);
  add(1, layer.weights[0], merged);
  return merged;
}

void expect_near(const Numbers& found, const Numbers& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], 1e-9 * (1 + std::abs(expected[i])))
        << "element " << i;
  }
}

// More rows than one block of the solver has, and a single one.
constexpr int64_t kRows[] = {1, 3, 200};

TEST(Gram, RegMeanEqualsItsDefinition) {
  for (const int64_t rows : kRows) {
    for (const double off_diagonal : {0.0, 0.9, 1.0}) {
      const Layer layer = random_layer(rows, 7, 3);
      for (const Numbers& weights : {Numbers{0.2, 0.5, 0.3}, {1, 0, 2}}) {
        const Solver solver = {
            .weights = weights, .off_diagonal = off_diagonal};
        expect_near(solver.merge(layer), regmean(layer, solver));
      }
    }
  }
}

TEST(Gram, GradientMatchingEqualsItsDefinition) {
  for (const int64_t rows : kRows) {
    for (const double ridge : {0.0, 0.01, 2.0}) {
      const Layer layer = random_layer(rows, 6, 3);
      // The method has no off_diagonal: 0 must not count.
      const Solver solver = {
          .method = "block_gradient_matching",
          .weights = {1, 0.4},
          .off_diagonal = 0,
          .ridge = ridge};
      expect_near(solver.merge(layer), gradient_matching(layer, solver));
    }
  }
}

TEST(Gram, ReturnsASingleModel) {
  const Layer one = random_layer(20, 5, 1);
  expect_near(Solver{.weights = {1}}.merge(one), one.weights[0]);
  expect_near(Solver{.weights = {0.25}}.merge(one), one.weights[0]);
  const Layer two = random_layer(20, 5, 2);
  const Solver matching = {.method = "block_gradient_matching", .weights = {1}};
  expect_near(matching.merge(two), two.weights[1]);
}

// Fewer tokens than inputs: the ridge decides in the other directions.
TEST(Gram, TakesSingularMatricesWithARidge) {
  const Layer layer = random_layer(4, 8, 2, /*tokens=*/2);
  const Solver solver = {.weights = {0.5, 0.5}, .off_diagonal = 1};
  expect_near(solver.merge(layer), regmean(layer, solver));
}

// Limits without tokens: the weighted mean, and task arithmetic.
TEST(Gram, ZeroMatricesGiveTheLimit) {
  Layer layer = random_layer(3, 4, 2);
  for (Numbers& gram : layer.grams) {
    std::ranges::fill(gram, 0);
  }
  Numbers mean(12);
  add(0.25, layer.weights[0], mean);
  add(0.75, layer.weights[1], mean);
  expect_near(Solver{.weights = {0.25, 0.75}}.merge(layer), mean);
  Numbers sum = layer.weights[0];
  add(0.5, layer.weights[1], sum);
  add(-0.5, layer.weights[0], sum);
  const Solver matching = {
      .method = "block_gradient_matching", .weights = {0.5}};
  expect_near(matching.merge(layer), sum);
}

TEST(Gram, DoesNotDependOnTheThreads) {
  const Layer layer = random_layer(300, 12, 3);
  for (const char* method : {"regmean", "block_gradient_matching"}) {
    Solver solver = {.method = method, .weights = {0.5, 0.3, 0.2}};
    solver.weights.resize(solver.has_base() ? 2 : 3);
    const Numbers one = solver.merge(layer, 1);
    for (const int threads : {2, 3, 8}) {
      EXPECT_EQ(solver.merge(layer, threads), one) << method;
    }
  }
}

TEST(Gram, TakesEmptyWeights) {
  const Layer layer = random_layer(0, 4, 2);
  const Solver solver = {.weights = {0.5, 0.5}};
  EXPECT_TRUE(solver.merge(layer).empty());
}

class GramRefusal : public ::testing::Test {
 protected:
  void expect_refusal(std::initializer_list<std::string> words) {
    for (const char* method : {"regmean", "block_gradient_matching"}) {
      solver_.method = method;
      solver_.weights.resize(solver_.has_base() ? 1 : 2, 0.5);
      expect_error<InputError>([&] { solver_.merge(layer_); }, words);
    }
  }

  Layer layer_ = random_layer(3, 4, 2);
  Solver solver_ = {.weights = {0.5, 0.5}};
};

TEST_F(GramRefusal, AsymmetricMatrices) {
  layer_.grams[1][1 * 4 + 2] += 0.1;
  expect_refusal({"grams", "'layer.weight'", "index 9", "symmetric"});
}

// Sums in float32 differ in their last places.
TEST_F(GramRefusal, NotOfRounding) {
  layer_.grams[1][1 * 4 + 2] += 1e-5;
  EXPECT_EQ(solver_.merge(layer_).size(), 12u);
}

TEST_F(GramRefusal, NegativeDiagonals) {
  layer_.grams[0][5] = -1;
  expect_refusal({"grams", "'layer.weight'", "-1", "index 5", "negative"});
}

TEST_F(GramRefusal, MatricesThatAreNotFinite) {
  layer_.grams[1][3] = std::numeric_limits<double>::quiet_NaN();
  expect_refusal({"grams", "'layer.weight'", "nan", "index 3", "finite"});
}

TEST_F(GramRefusal, WeightsThatAreNotFinite) {
  layer_.weights[1][7] = std::numeric_limits<double>::infinity();
  expect_refusal({"weights", "'layer.weight'", "inf", "index 7", "finite"});
}

TEST_F(GramRefusal, RankDeficientSums) {
  for (Numbers& gram : layer_.grams) {
    for (int64_t i = 0; i < 4; ++i) {
      gram[2 * 4 + i] = gram[i * 4 + 2] = 0; // an input that is always 0
    }
  }
  solver_.ridge = 0;
  expect_refusal({"'layer.weight'", "full rank", "ridge", "than 0"});
}

} // namespace
} // namespace merganser::test
