#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/eval/eval_result.h"
#include "merganser/search/proposals.h"
#include "merganser/search/search_space.h"

namespace merganser {

// A recipe that was tried.
struct Trial {
  std::vector<std::string> values; // of the space; none: the recipe's own
  std::vector<EvalResult> sets; // one per data file
  std::optional<std::string> refused; // why it cannot be merged

  double loss() const; // means over the sets
  double accuracy() const;
  std::optional<SearchScore> score(bool by_loss) const;
};

struct MERGANSER_API SearchResult {
  SearchSpace space;
  std::vector<std::filesystem::path> data;
  std::vector<Trial> trials; // the first is the recipe itself
  bool by_loss = true;
  std::filesystem::path best_recipe;
  int64_t tried = 0; // in this run
  double merge_seconds = 0; // of these
  double evaluation_seconds = 0;

  // Positions of the trials that were not refused, the best first.
  std::vector<size_t> ranked() const;
  std::string to_text() const; // a table of the best trials
  std::string to_json() const;
};

// A line of the journal.
nlohmann::ordered_json to_json(
    size_t position,
    const Trial& trial,
    const SearchSpace& space,
    const std::vector<std::filesystem::path>& data);
Trial trial_from_json(const nlohmann::ordered_json& json);

} // namespace merganser
