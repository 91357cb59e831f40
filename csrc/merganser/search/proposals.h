#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/search/search_space.h"

namespace merganser {

// A point of the unit cube: a position for each parameter.
using SearchPoint = std::vector<double>;

// Score of a trial, smaller is better; the second decides where the
// first is equal.
using SearchScore = std::pair<double, double>;

// Proposes the trials of a search. With ranges it takes turns between the
// points of a low-discrepancy sequence (Roberts' R_d, with a seeded start) and
// normal steps from the best point so far, whose length follows the rule of one
// success in five (Rechenberg 1973). Lists alone have all their combinations
// once, in an order that spreads them. What comes next depends on the seed and
// on the scores reported so far, and not on the number of trials.
class MERGANSER_API Proposals {
 public:
  Proposals(SearchSpace space, uint64_t seed);

  // Nothing once all combinations were proposed.
  std::optional<SearchPoint> next();
  // The score of the last one; nothing if the recipe was refused.
  void tell(const std::optional<SearchScore>& score);

 private:
  SearchPoint combination(uint64_t index) const;
  SearchPoint explore();
  SearchPoint step();

  SearchSpace space_;
  uint64_t seed_;
  std::optional<uint64_t> combinations_; // lists alone
  uint64_t proposed_ = 0;
  uint64_t explored_ = 0;
  double length_; // of steps
  bool is_step_ = false; // the last one
  SearchPoint last_;
  std::optional<SearchPoint> best_;
  SearchScore best_score_;
};

} // namespace merganser
