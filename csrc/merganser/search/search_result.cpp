#include "merganser/search/search_result.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kRows = 10; // of the table

double mean(const std::vector<EvalResult>& sets, double EvalResult::*value) {
  double sum = 0;
  for (const EvalResult& set : sets) {
    sum += set.*value;
  }
  return sum / static_cast<double>(sets.size());
}

// A number or a flag as such, `auto` as text.
Json value_to_json(const std::string& value) {
  const Json json = parse_json_or_discard(value);
  return json.is_discarded() ? Json(value) : json;
}

std::string value_from_json(const Json& json) {
  return json.is_string() ? json.get<std::string>() : json_text(json);
}

} // namespace

double Trial::loss() const {
  return mean(sets, &EvalResult::loss);
}

double Trial::accuracy() const {
  return mean(sets, &EvalResult::accuracy);
}

std::optional<SearchScore> Trial::score(bool by_loss) const {
  if (refused) {
    return std::nullopt;
  }
  return by_loss ? SearchScore(loss(), -accuracy())
                 : SearchScore(-accuracy(), loss());
}

std::vector<size_t> SearchResult::ranked() const {
  std::vector<size_t> positions;
  for (size_t i = 0; i < trials.size(); ++i) {
    if (!trials[i].refused) {
      positions.push_back(i);
    }
  }
  std::ranges::stable_sort(
      positions, {}, [&](size_t i) { return *trials[i].score(by_loss); });
  return positions;
}

std::string SearchResult::to_text() const {
  std::vector<std::vector<std::string>> rows = {{"trial"}};
  for (const SearchedParameter& searched : space) {
    rows[0].push_back(searched.key);
  }
  rows[0].insert(rows[0].end(), {"loss", "accuracy"});
  const std::vector<size_t> best = ranked();
  for (size_t rank = 0; rank < best.size(); ++rank) {
    const Trial& trial = trials[best[rank]];
    if (rank >= kRows && best[rank] != 0) {
      continue; // the recipe's own row is always there
    }
    std::vector<std::string> row = {
        best[rank] == 0 ? "recipe" : fmt::format("{}", best[rank])};
    for (size_t i = 0; i < space.size(); ++i) {
      row.push_back(trial.values.empty() ? "" : trial.values[i]);
    }
    row.push_back(fmt::format("{:.4f}", trial.loss()));
    row.push_back(fmt::format("{:.2f} %", 100 * trial.accuracy()));
    rows.push_back(std::move(row));
  }
  std::string text = format_table(rows);
  const auto refused = std::ranges::find_if(
      trials, [](const Trial& trial) { return trial.refused.has_value(); });
  if (refused != trials.end()) {
    text += fmt::format(
        "{} of {} trials were refused; the first: {}\n",
        trials.size() - best.size(),
        trials.size(),
        *refused->refused);
  }
  return text + fmt::format("Best recipe: {}\n", best_recipe.string());
}

std::string SearchResult::to_json() const {
  const auto entry = [&](size_t position) {
    return merganser::to_json(position, trials[position], space, data);
  };
  Json all = Json::array();
  for (size_t i = 0; i < trials.size(); ++i) {
    all.push_back(entry(i));
  }
  const Json json = {
      {"objective", by_loss ? "loss" : "accuracy"},
      {"best_recipe", best_recipe.string()},
      {"best", entry(ranked().front())},
      {"trials", std::move(all)},
      {"tried", tried},
      {"merge_seconds", merge_seconds},
      {"evaluation_seconds", evaluation_seconds}};
  return json_text_replacing(json, 2);
}

Json to_json(
    size_t position,
    const Trial& trial,
    const SearchSpace& space,
    const std::vector<std::filesystem::path>& data) {
  Json json = {{"trial", position}, {"values", Json::object()}};
  for (size_t i = 0; i < trial.values.size(); ++i) {
    json["values"][space[i].key] = value_to_json(trial.values[i]);
  }
  if (trial.refused) {
    json["refused"] = *trial.refused;
    return json;
  }
  json["loss"] = trial.loss();
  json["accuracy"] = trial.accuracy();
  for (size_t i = 0; i < data.size(); ++i) {
    Json set = {{"file", data[i].string()}};
    set.update(to_json(trial.sets[i]));
    json["sets"].push_back(std::move(set));
  }
  return json;
}

Trial trial_from_json(const Json& json) {
  Trial trial;
  for (const auto& [key, value] : json.at("values").items()) {
    trial.values.push_back(value_from_json(value));
  }
  if (json.contains("refused")) {
    trial.refused = json.at("refused").get<std::string>();
    return trial;
  }
  for (const Json& set : json.at("sets")) {
    trial.sets.push_back(eval_result_from_json(set));
  }
  return trial;
}

} // namespace merganser
