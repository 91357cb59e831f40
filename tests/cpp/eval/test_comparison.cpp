// Paired statistics of two models, against binomial sums by Pascal's rule and
// against the exact distribution that the bootstrap samples from.

#include "merganser/eval/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

namespace merganser {
namespace {

// The probability of k heads in n throws: P(n, k) = (P(n-1, k-1) + P(n-1, k))
// / 2.
std::vector<double> fair_binomial(int64_t n) {
  std::vector<double> row = {1};
  for (int64_t i = 0; i < n; ++i) {
    std::vector<double> next(row.size() + 1);
    for (size_t k = 0; k < row.size(); ++k) {
      next[k] += row[k] / 2;
      next[k + 1] += row[k] / 2;
    }
    row = std::move(next);
  }
  return row;
}

// The total probability of outcomes at least as far from n / 2 as this one.
double define_mcnemar(int64_t only_a, int64_t only_b) {
  const int64_t n = only_a + only_b;
  const std::vector<double> probabilities = fair_binomial(n);
  double p = 0;
  for (int64_t k = 0; k <= n; ++k) {
    if (std::abs(2 * k - n) >= std::abs(only_a - only_b)) {
      p += probabilities[k];
    }
  }
  return p;
}

TEST(McNemar, IsTheExactBinomialTest) {
  for (int64_t a = 0; a <= 40; ++a) {
    for (const int64_t b : {0, 1, 2, 3, 7, 8, 25, 40}) {
      EXPECT_NEAR(mcnemar_p(a, b) / define_mcnemar(a, b), 1, 1e-11)
          << a << " " << b;
    }
  }
  // lgamma loses digits in large numbers.
  EXPECT_NEAR(mcnemar_p(1450, 1550) / define_mcnemar(1450, 1550), 1, 1e-9);
}

TEST(McNemar, KnownValues) {
  EXPECT_DOUBLE_EQ(mcnemar_p(0, 0), 1);
  EXPECT_DOUBLE_EQ(mcnemar_p(5, 5), 1);
  EXPECT_NEAR(mcnemar_p(0, 5), 2.0 / 32, 1e-12);
  EXPECT_NEAR(mcnemar_p(0, 6), 2.0 / 64, 1e-12);
  EXPECT_NEAR(mcnemar_p(1, 9), 22.0 / 1024, 1e-12);
  EXPECT_NEAR(mcnemar_p(8, 2), 112.0 / 1024, 1e-12);
  // scipy.stats.binomtest(59, 180).pvalue
  EXPECT_NEAR(mcnemar_p(121, 59), 4.43444926e-06, 1e-13);
}

// Numbers of examples that both classify correctly, a only, b only, neither.
struct Outcomes {
  int both = 0;
  int only_a = 0;
  int only_b = 0;
  int neither = 0;

  int examples() const {
    return both + only_a + only_b + neither;
  }
};

struct Pair {
  std::vector<Predictions> a;
  std::vector<Predictions> b;

  void add(const std::string& set, const Outcomes& outcomes) {
    a.push_back({set, {}, {}});
    b.push_back({set, {}, {}});
    const auto append = [&](int count, bool a_is_correct, bool b_is_correct) {
      for (int i = 0; i < count; ++i) {
        add_example(a.back(), a_is_correct);
        add_example(b.back(), b_is_correct);
      }
    };
    append(outcomes.both, true, true);
    append(outcomes.only_a, true, false);
    append(outcomes.only_b, false, true);
    append(outcomes.neither, false, false);
  }

 private:
  // Three classes, with another probability and another label every time.
  static void add_example(Predictions& to, bool is_correct) {
    const size_t n = to.labels.size();
    const auto label = static_cast<int64_t>(n % 3);
    std::vector<float> row(3);
    const float share = 0.55F + 0.004F * static_cast<float>(n % 100);
    row[is_correct ? n % 3 : (n + 1) % 3] = share;
    row[(n + 2) % 3] = (1 - share) * 0.75F;
    row[is_correct ? (n + 1) % 3 : n % 3] = (1 - share) * 0.25F;
    to.probabilities.insert(to.probabilities.end(), row.begin(), row.end());
    to.labels.push_back(label);
  }
};

// Probabilities of the values that the resampled difference can take: n draws
// of -1, 0 or 1 per set, each sum times the set's factor.
std::map<double, double> define_resamples(
    const std::vector<Outcomes>& sets,
    const std::vector<double>& factors) {
  std::map<double, double> whole = {{0.0, 1.0}};
  for (size_t i = 0; i < sets.size(); ++i) {
    const int n = sets[i].examples();
    const double up = static_cast<double>(sets[i].only_a) / n;
    const double down = static_cast<double>(sets[i].only_b) / n;
    std::map<int, double> sums = {{0, 1.0}};
    for (int draw = 0; draw < n; ++draw) {
      std::map<int, double> next;
      for (const auto& [sum, p] : sums) {
        next[sum + 1] += p * up;
        next[sum - 1] += p * down;
        next[sum] += p * (1 - up - down);
      }
      sums = std::move(next);
    }
    std::map<double, double> next;
    for (const auto& [value, p] : whole) {
      for (const auto& [sum, q] : sums) {
        // Rounded, so that equal values meet.
        const double total = value + factors[i] * sum;
        next[std::round(total * 1e9) / 1e9] += p * q;
      }
    }
    whole = std::move(next);
  }
  return whole;
}

double probability(
    const std::map<double, double>& distribution,
    double from,
    double to) {
  double sum = 0;
  for (const auto& [value, p] : distribution) {
    sum += value >= from && value <= to ? p : 0;
  }
  return sum;
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// 10,000 resamples: five standard errors of each probability.
void expect_resampled(
    const Difference& found,
    const std::map<double, double>& exact) {
  const auto tolerance = [](double p) {
    return 5 * std::sqrt(p * (1 - p) / 10'000) + 1e-4;
  };
  const double side = std::min(
      probability(exact, -kInfinity, 1e-9),
      probability(exact, -1e-9, kInfinity));
  EXPECT_NEAR(found.p, std::min(1.0, 2 * side), 2 * tolerance(side));
  const double q = 0.025;
  const double rounding = 1e-8;
  EXPECT_LE(
      probability(exact, -kInfinity, found.low - rounding), q + tolerance(q));
  EXPECT_GE(
      probability(exact, -kInfinity, found.low + rounding), q - tolerance(q));
  EXPECT_LE(
      probability(exact, found.high + rounding, kInfinity), q + tolerance(q));
  EXPECT_GE(
      probability(exact, found.high - rounding, kInfinity), q - tolerance(q));
}

TEST(Compare, CountsAndAccuracies) {
  Pair pair;
  pair.add("x", {.both = 20, .only_a = 9, .only_b = 2, .neither = 9});
  pair.add("y", {.both = 60, .only_a = 4, .only_b = 10, .neither = 6});
  const Comparison found = compare(pair.a, pair.b, 3);
  ASSERT_EQ(found.sets.size(), 2);
  EXPECT_EQ(found.sets[0].set, "x");
  EXPECT_EQ(found.sets[0].examples, 40);
  EXPECT_EQ(found.sets[0].only_a, 9);
  EXPECT_EQ(found.sets[0].only_b, 2);
  EXPECT_EQ(found.sets[1].examples, 80);
  EXPECT_EQ(found.sets[1].only_a, 4);
  EXPECT_EQ(found.sets[1].only_b, 10);
  // 29/40 - 22/40 and 64/80 - 70/80
  EXPECT_NEAR(found.average.difference, (7.0 / 40 - 6.0 / 80) / 2, 1e-12);
  EXPECT_NEAR(found.over_examples.difference, 1.0 / 120, 1e-12);
}

TEST(Compare, Losses) {
  Pair pair;
  pair.add("x", {.both = 5, .only_a = 3, .only_b = 1, .neither = 2});
  pair.add("y", {.both = 2, .only_a = 0, .only_b = 6, .neither = 1});
  const Comparison found = compare(pair.a, pair.b, 0);
  double average = 0;
  double variance_of_sum = 0;
  for (size_t s = 0; s < 2; ++s) {
    std::vector<double> differences;
    for (size_t i = 0; i < pair.a[s].labels.size(); ++i) {
      const auto loss = [&](const Predictions& model) {
        return -std::log(static_cast<double>(
            model.probabilities[3 * i + static_cast<size_t>(model.labels[i])]));
      };
      differences.push_back(loss(pair.a[s]) - loss(pair.b[s]));
    }
    const auto n = static_cast<double>(differences.size());
    double mean = 0;
    double squares = 0;
    for (const double d : differences) {
      mean += d / n;
      squares += d * d;
    }
    // The sample variance, of a mean of n.
    const double variance = (squares - n * mean * mean) / (n - 1) / n;
    EXPECT_NEAR(found.sets[s].loss_difference, mean, 1e-6);
    EXPECT_NEAR(found.sets[s].loss_variance, variance, 1e-5 * variance);
    average += mean / 2;
    variance_of_sum += variance;
  }
  EXPECT_NEAR(found.loss_difference, average, 1e-6);
  EXPECT_NEAR(found.loss_standard_error, std::sqrt(variance_of_sum) / 2, 1e-6);
}

TEST(Compare, AProbabilityOfZeroHasAFiniteLoss) {
  const std::vector<Predictions> a = {{"x", {0, 1}, {0}}};
  const std::vector<Predictions> b = {{"x", {1, 0}, {0}}};
  // float32's smallest number is 2^-149.
  EXPECT_NEAR(compare(a, b, 0).loss_difference, 149 * std::log(2.0), 1e-4);
  EXPECT_EQ(compare(a, b, 0).sets[0].only_b, 1);
}

TEST(Compare, BootstrapHasTheDistributionOfResampledExamples) {
  const std::vector<std::vector<Outcomes>> cases = {
      {{.both = 20, .only_a = 9, .only_b = 2, .neither = 9}},
      {{.both = 3, .only_a = 2, .only_b = 4, .neither = 1}},
      {{.both = 20, .only_a = 9, .only_b = 4, .neither = 7},
       {.both = 60, .only_a = 6, .only_b = 10, .neither = 4}}};
  for (const std::vector<Outcomes>& sets : cases) {
    Pair pair;
    std::vector<double> per_set;
    double examples = 0;
    for (const Outcomes& set : sets) {
      pair.add("set " + std::to_string(pair.a.size()), set);
      per_set.push_back(
          1.0 / static_cast<double>(sets.size()) / set.examples());
      examples += set.examples();
    }
    const std::vector<double> per_example(sets.size(), 1 / examples);
    for (const uint64_t seed : {0, 1, 2}) {
      const Comparison found = compare(pair.a, pair.b, seed);
      expect_resampled(found.average, define_resamples(sets, per_set));
      expect_resampled(
          found.over_examples, define_resamples(sets, per_example));
    }
  }
}

TEST(Compare, BootstrapDependsOnTheSeedAlone) {
  Pair pair;
  pair.add("x", {.both = 200, .only_a = 31, .only_b = 22, .neither = 70});
  const Comparison first = compare(pair.a, pair.b, 5);
  const Comparison again = compare(pair.a, pair.b, 5);
  EXPECT_EQ(to_json(first), to_json(again));
  EXPECT_NE(to_json(first), to_json(compare(pair.a, pair.b, 6)));
  const Comparison swapped = compare(pair.b, pair.a, 5);
  EXPECT_DOUBLE_EQ(swapped.average.difference, -first.average.difference);
  EXPECT_NEAR(swapped.average.low, -first.average.high, 0.01);
  EXPECT_NEAR(swapped.average.p, first.average.p, 0.03);
}

TEST(Compare, ExtremesOfTheBootstrap) {
  Pair same;
  same.add("x", {.both = 7, .neither = 3});
  const Comparison equal = compare(same.a, same.b, 0);
  EXPECT_EQ(equal.average.difference, 0);
  EXPECT_EQ(equal.average.low, 0);
  EXPECT_EQ(equal.average.high, 0);
  EXPECT_EQ(equal.average.p, 1);
  Pair opposite;
  opposite.add("x", {.only_a = 10});
  const Comparison far = compare(opposite.a, opposite.b, 0);
  EXPECT_EQ(far.average.low, 1);
  // No resample is at 0 or below; the sample itself counts as one.
  EXPECT_DOUBLE_EQ(far.average.p, 2.0 / 10'001);
}

TEST(Compare, Json) {
  Pair pair;
  pair.add("x", {.both = 20, .only_a = 9, .only_b = 1, .neither = 10});
  const Comparison found = compare(pair.a, pair.b, 3);
  const nlohmann::ordered_json json = to_json(found);
  EXPECT_EQ(json["sets"]["x"]["only_a"], 9);
  EXPECT_EQ(json["sets"]["x"]["only_b"], 1);
  EXPECT_NEAR(json["sets"]["x"]["mcnemar_p"], 22.0 / 1024, 1e-12);
  EXPECT_EQ(json["average"]["difference"], found.average.difference);
  EXPECT_EQ(json["accuracy_over_examples"]["p"], found.over_examples.p);
  EXPECT_EQ(json["loss"]["standard_error"], found.loss_standard_error);
}

// Two seeds that agree on every text are no more evidence than one.
TEST(Comparison, TextsAreTheUnitsOfPooledSeeds) {
  const Outcomes outcomes = {
      .both = 60, .only_a = 12, .only_b = 5, .neither = 23};
  Pair one;
  one.add("set", outcomes);
  Pair two;
  two.add("set", outcomes);
  Texts texts(1);
  for (int seed = 0; seed < 2; ++seed) {
    for (size_t i = 0; i < 100; ++i) {
      texts[0].push_back(i);
    }
  }
  for (std::vector<Predictions>* side : {&two.a, &two.b}) {
    auto& [name, probabilities, labels] = side->front();
    const std::vector<float> again = probabilities;
    const std::vector<int64_t> again_labels = labels;
    probabilities.insert(probabilities.end(), again.begin(), again.end());
    labels.insert(labels.end(), again_labels.begin(), again_labels.end());
  }
  const Comparison alone = compare(one.a, one.b, 3);
  const Comparison pooled = compare(two.a, two.b, 3, texts);
  EXPECT_EQ(pooled.sets[0].only_a, 12);
  EXPECT_EQ(pooled.sets[0].only_b, 5);
  EXPECT_DOUBLE_EQ(pooled.average.difference, alone.average.difference);
  EXPECT_DOUBLE_EQ(pooled.average.low, alone.average.low);
  EXPECT_DOUBLE_EQ(pooled.average.high, alone.average.high);
  EXPECT_EQ(pooled.average.p, alone.average.p);
  EXPECT_NEAR(pooled.loss_standard_error, alone.loss_standard_error, 1e-12);
  // Examples that are units of their own claim more.
  const Comparison apart = compare(two.a, two.b, 3);
  EXPECT_LT(apart.average.p, alone.average.p);
  EXPECT_LT(apart.loss_standard_error, 0.75 * alone.loss_standard_error);
}

// A text that each model gets right with one seed is no difference.
TEST(Comparison, ATextCountsForTheModelThatIsRightMoreOften) {
  Pair pair;
  pair.add("set", {.both = 0, .only_a = 3, .only_b = 3, .neither = 0});
  const Texts texts = {{0, 1, 2, 0, 1, 3}}; // the last three: only b
  const Comparison found = compare(pair.a, pair.b, 0, texts);
  EXPECT_EQ(found.sets[0].only_a, 1); // text 2
  EXPECT_EQ(found.sets[0].only_b, 1); // text 3
  EXPECT_EQ(found.average.difference, 0);
}

} // namespace
} // namespace merganser
