#include "merganser/eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <utility>

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

// `texts`: of the examples; empty: each its own.
SetComparison compare_set(
    const Predictions& a,
    const Predictions& b,
    const std::vector<size_t>& texts) {
  SetComparison result;
  result.set = a.set;
  result.examples = std::ssize(a.labels);
  const auto n = static_cast<double>(result.examples);
  struct Text {
    SetComparison::Outcome outcome{.examples = 0, .more = 0};
    double loss = 0; // sum of differences
  };
  std::vector<Text> found(a.labels.size());
  for (size_t i = 0; i < a.labels.size(); ++i) {
    Text& text = found[texts.empty() ? i : texts[i]];
    ++text.outcome.examples;
    text.outcome.more += static_cast<int64_t>(is_correct(a, i)) -
        static_cast<int64_t>(is_correct(b, i));
    const double difference = loss(a, i) - loss(b, i);
    text.loss += difference;
    result.loss_difference += difference / n;
  }
  double squares = 0;
  double count = 0;
  for (const auto& [outcome, loss] : found) {
    if (outcome.examples == 0) {
      continue;
    }
    ++count;
    ++result.outcomes[outcome];
    result.only_a += outcome.more > 0;
    result.only_b += outcome.more < 0;
    const double deviation =
        loss - static_cast<double>(outcome.examples) * result.loss_difference;
    squares += deviation * deviation;
  }
  result.loss_variance = squares / (n * n) * count / std::max(count - 1, 1.0);
  return result;
}

double share(int64_t part, int64_t all) {
  return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
}

// A resample of a set's texts: the counts of their outcomes are a multinomial
// draw.
class ResampledSet {
 public:
  explicit ResampledSet(const SetComparison& set)
      : outcomes_(set.outcomes.rbegin(), set.outcomes.rend()) {
    // The most frequent outcome is no difference: what the others leave.
    std::stable_partition(
        outcomes_.begin(), outcomes_.end(), [](const auto& item) {
          return item.first.more != 0;
        });
    for (const auto& [outcome, count] : outcomes_) {
      texts_ += count;
    }
  }

  // The sums over the texts drawn.
  SetComparison::Outcome operator()(std::mt19937_64& random) const {
    SetComparison::Outcome sum{.examples = 0, .more = 0};
    int64_t left = texts_; // to draw
    int64_t rest = texts_; // with the outcomes that follow
    for (const auto& [outcome, count] : outcomes_) {
      std::binomial_distribution<int64_t> draw(left, share(count, rest));
      const int64_t drawn = count == rest ? left : draw(random);
      sum.examples += drawn * outcome.examples;
      sum.more += drawn * outcome.more;
      left -= drawn;
      rest -= count;
    }
    return sum;
  }

 private:
  std::vector<std::pair<SetComparison::Outcome, int64_t>> outcomes_;
  int64_t texts_ = 0;
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
  using Outcome = SetComparison::Outcome;
  std::mt19937_64 random(seed);
  std::vector<ResampledSet> draws;
  std::vector<Outcome> observed;
  for (const SetComparison& set : comparison.sets) {
    draws.emplace_back(set);
    Outcome sum{.examples = 0, .more = 0};
    for (const auto& [outcome, count] : set.outcomes) {
      sum.examples += count * outcome.examples;
      sum.more += count * outcome.more;
    }
    observed.push_back(sum);
  }
  // Differences of accuracies.
  const auto average = [](const std::vector<Outcome>& sets) {
    double sum = 0;
    for (const Outcome& set : sets) {
      sum += static_cast<double>(set.more) / static_cast<double>(set.examples);
    }
    return sum / static_cast<double>(sets.size());
  };
  const auto over_examples = [](const std::vector<Outcome>& sets) {
    double more = 0;
    double examples = 0;
    for (const Outcome& set : sets) {
      more += static_cast<double>(set.more);
      examples += static_cast<double>(set.examples);
    }
    return more / examples;
  };
  std::vector<double> averages;
  std::vector<double> overall;
  std::vector<Outcome> drawn(draws.size());
  for (int r = 0; r < kResamples; ++r) {
    for (size_t i = 0; i < draws.size(); ++i) {
      drawn[i] = draws[i](random);
    }
    averages.push_back(average(drawn));
    overall.push_back(over_examples(drawn));
  }
  comparison.average = summarize(average(observed), std::move(averages));
  comparison.over_examples =
      summarize(over_examples(observed), std::move(overall));
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
    uint64_t seed,
    const Texts& texts) {
  Comparison result;
  const auto sets = static_cast<double>(a.size());
  double variance = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    result.sets.push_back(compare_set(
        a[i], b[i], texts.empty() ? std::vector<size_t>() : texts[i]));
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
