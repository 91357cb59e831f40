#include "merganser/eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <span>

namespace merganser {
namespace {

constexpr int kResamples = 10'000;
constexpr double kRounding = 1e-12; // of a difference that is 0

bool is_correct(const Predictions& from, size_t i) {
  const std::span row(&from.probabilities[i * from.classes()], from.classes());
  return std::ranges::max_element(row) - row.begin() == from.labels[i];
}

double loss(const Predictions& from, size_t i) {
  const float p =
      from.probabilities
          [i * from.classes() + static_cast<size_t>(from.labels[i])];
  // Probabilities below float32's range have become 0.
  return -std::log(std::max(p, std::numeric_limits<float>::denorm_min()));
}

SetComparison compare_set(const Predictions& a, const Predictions& b) {
  SetComparison result;
  result.set = a.set;
  result.examples = std::ssize(a.labels);
  const auto n = static_cast<double>(result.examples);
  std::vector<double> losses;
  for (size_t i = 0; i < a.labels.size(); ++i) {
    const bool correct[] = {is_correct(a, i), is_correct(b, i)};
    result.only_a += correct[0] && !correct[1];
    result.only_b += correct[1] && !correct[0];
    losses.push_back(loss(a, i) - loss(b, i));
    result.loss_difference += losses.back() / n;
  }
  for (const double value : losses) {
    const double deviation = value - result.loss_difference;
    result.loss_variance += deviation * deviation / n;
  }
  result.loss_variance /= std::max(n - 1, 1.0);
  return result;
}

// The sum of the differences of correctness over a resample of a set. The
// differences are -1, 0 or 1, so their counts are a multinomial draw.
class ResampledSum {
 public:
  explicit ResampledSum(const SetComparison& set)
      : only_a_(set.examples, share(set.only_a, set.examples)),
        rest_(set.examples),
        share_b_(share(set.only_b, set.examples - set.only_a)) {}

  int64_t operator()(std::mt19937_64& random) {
    const int64_t a = only_a_(random);
    std::binomial_distribution<int64_t> only_b(rest_ - a, share_b_);
    return a - only_b(random);
  }

 private:
  static double share(int64_t part, int64_t all) {
    return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
  }

  std::binomial_distribution<int64_t> only_a_;
  int64_t rest_;
  double share_b_; // of the examples that are not only_a
};

// Interpolated between the two closest values, as numpy does.
double quantile(const std::vector<double>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(
      sorted[below], sorted[above], position - static_cast<double>(below));
}

Difference summarize(double difference, std::vector<double> resampled) {
  std::ranges::sort(resampled);
  const auto count = [&](auto is_on_side) {
    return static_cast<double>(std::ranges::count_if(resampled, is_on_side));
  };
  const double side = std::min(
      count([](double value) { return value <= kRounding; }),
      count([](double value) { return value >= -kRounding; }));
  return {
      difference,
      quantile(resampled, 0.025),
      quantile(resampled, 0.975),
      // Counts the sample itself: p is never 0.
      std::min(1.0, 2 * (side + 1) / (kResamples + 1))};
}

// Fills `average` and `over_examples`.
void resample(Comparison& comparison, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<ResampledSum> draws;
  double examples = 0;
  for (const SetComparison& set : comparison.sets) {
    draws.emplace_back(set);
    examples += static_cast<double>(set.examples);
  }
  const auto sets = static_cast<double>(comparison.sets.size());
  struct Accuracies {
    double average = 0;
    double over_examples = 0;
  };
  const auto add = [&](Accuracies& to, const SetComparison& set, int64_t sum) {
    const auto difference = static_cast<double>(sum);
    to.average += difference / static_cast<double>(set.examples) / sets;
    to.over_examples += difference / examples;
  };
  Accuracies observed;
  for (const SetComparison& set : comparison.sets) {
    add(observed, set, set.only_a - set.only_b);
  }
  std::vector<double> averages;
  std::vector<double> over_examples;
  for (int r = 0; r < kResamples; ++r) {
    Accuracies drawn;
    for (size_t i = 0; i < draws.size(); ++i) {
      add(drawn, comparison.sets[i], draws[i](random));
    }
    averages.push_back(drawn.average);
    over_examples.push_back(drawn.over_examples);
  }
  comparison.average = summarize(observed.average, std::move(averages));
  comparison.over_examples =
      summarize(observed.over_examples, std::move(over_examples));
}

nlohmann::ordered_json to_json(const Difference& d) {
  return {
      {"difference", d.difference},
      {"low", d.low},
      {"high", d.high},
      {"p", d.p}};
}

} // namespace

double mcnemar_p(int64_t only_a, int64_t only_b) {
  const auto n = static_cast<double>(only_a + only_b);
  const int64_t fewer = std::min(only_a, only_b);
  double tail = 0;
  for (int64_t k = 0; k <= fewer; ++k) {
    const auto x = static_cast<double>(k);
    tail += std::exp(
        std::lgamma(n + 1) - std::lgamma(x + 1) - std::lgamma(n - x + 1) -
        n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

Comparison compare(
    const std::vector<Predictions>& a,
    const std::vector<Predictions>& b,
    uint64_t seed) {
  Comparison result;
  const auto sets = static_cast<double>(a.size());
  double variance = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    result.sets.push_back(compare_set(a[i], b[i]));
    result.loss_difference += result.sets.back().loss_difference / sets;
    variance += result.sets.back().loss_variance;
  }
  result.loss_standard_error = std::sqrt(variance) / sets;
  resample(result, seed);
  return result;
}

nlohmann::ordered_json to_json(const Comparison& comparison) {
  nlohmann::ordered_json json;
  for (const SetComparison& set : comparison.sets) {
    json["sets"][set.set] = {
        {"only_a", set.only_a},
        {"only_b", set.only_b},
        {"mcnemar_p", mcnemar_p(set.only_a, set.only_b)}};
  }
  json["average"] = to_json(comparison.average);
  json["accuracy_over_examples"] = to_json(comparison.over_examples);
  json["loss"] = {
      {"difference", comparison.loss_difference},
      {"standard_error", comparison.loss_standard_error}};
  return json;
}

} // namespace merganser
