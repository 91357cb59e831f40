#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/eval/predictions.h"

// Paired statistics of two models on the same examples. Differences are those
// of a minus b. With models of several seeds, an example is a text and a seed;
// examples of one text are not independent, and the statistics take texts as
// their units.
namespace merganser {

// Per set and example the number of its text, below the number of examples.
// Empty: each example is a text of its own.
using Texts = std::vector<std::vector<size_t>>;

// The exact McNemar test: two-sided binomial test of the texts that one model
// alone classifies correctly.
MERGANSER_API double mcnemar_p(int64_t only_a, int64_t only_b);

struct SetComparison {
  std::string set;
  // A text's examples, and how many more of them a classifies correctly than b.
  struct Outcome {
    int64_t examples = 1;
    int64_t more = 0;
    bool operator<(const Outcome& other) const {
      return std::tie(examples, more) < std::tie(other.examples, other.more);
    }
  };
  std::map<Outcome, int64_t> outcomes; // numbers of texts
  int64_t examples = 0;
  int64_t only_a = 0; // texts: correct by a, wrong by b, or with more seeds
  int64_t only_b = 0;
  double loss_difference = 0; // mean
  double loss_variance = 0; // of that mean
};

// A bootstrap over the texts within each set: the interval between the 2.5 %
// and 97.5 % quantiles of the resampled differences, and the two-sided p value
// twice the smaller share of resamples on one side of 0, at most 1.
struct Difference {
  double difference = 0;
  double low = 0;
  double high = 0;
  double p = 1;
};

struct Comparison {
  std::vector<SetComparison> sets;
  Difference average; // of accuracies, every set counts the same
  Difference over_examples; // every example counts the same
  double loss_difference = 0; // every set counts the same
  double loss_standard_error = 0;
};

// Both have the same sets and examples. The same seed gives the same resamples
// of equal counts.
MERGANSER_API Comparison compare(
    const std::vector<Predictions>& a,
    const std::vector<Predictions>& b,
    uint64_t seed,
    const Texts& texts = {});

MERGANSER_API nlohmann::ordered_json to_json(const Comparison& comparison);

} // namespace merganser
