#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/experiment/results.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

std::string percent(const Json& share) {
  return fmt::format("{:5.1f}", 100 * share.get<double>());
}

std::string decimals(const Json& number) {
  return fmt::format("{:.3f}", number.get<double>());
}

bool any_has(const Json& models, const char* key) {
  return std::ranges::any_of(
      models, [&](const Json& model) { return model.contains(key); });
}

Row header(const Json& results) {
  const Json& models = results.at("models");
  Row row = {"accuracy, %", ""};
  for (const Json& set : results.at("sets")) {
    row.push_back(set);
  }
  row.push_back("average");
  if (any_has(models, "standard_error")) {
    row.push_back("s.e.");
  }
  row.push_back("loss");
  if (any_has(models, "standard_error")) {
    row.push_back("s.e.");
  }
  row.push_back("calibration, %");
  if (any_has(models, "share_of_gap")) {
    row.push_back("of gap, %");
  }
  if (any_has(models, "retained")) {
    row.push_back(fmt::format(
        "of base on {}, %", results.at("base_data").get<std::string>()));
  }
  if (any_has(models, "mismatch")) {
    row.insert(row.end(), {"mismatch", "in 1/H0"});
  }
  return row;
}

Row cells(const Json& results, const Json& model) {
  const Json& models = results.at("models");
  const Json& average = model.at("average");
  Row row = {model.at("name"), model.at("kind")};
  for (const Json& set : model.at("sets")) {
    row.push_back(percent(set.at("accuracy")));
  }
  const Json* errors = model.contains("standard_error")
      ? &model["standard_error"].at("average")
      : nullptr;
  row.push_back(percent(average.at("accuracy")));
  if (errors != nullptr) {
    row.push_back(percent(errors->at("accuracy")));
  }
  row.push_back(decimals(average.at("loss")));
  if (errors != nullptr) {
    row.push_back(decimals(errors->at("loss")));
  }
  row.push_back(percent(average.at("calibration_error")));
  if (any_has(models, "share_of_gap")) {
    row.push_back(percent(model.at("share_of_gap")));
  }
  if (any_has(models, "retained")) {
    row.push_back(percent(model.at("retained")));
  }
  if (model.contains("mismatch")) {
    const Json& norms = model["mismatch"].at("total").at("mismatch");
    for (const char* norm : {"norm", "h0_inverse_norm"}) {
      row.push_back(fmt::format("{:.4g}", norms.at(norm).get<double>()));
    }
  }
  return row;
}

std::string best_text(const Json& results) {
  const auto average = [&](const char* quantity) {
    const auto model =
        std::ranges::find_if(results.at("models"), [&](const Json& candidate) {
          return candidate.at("name") == results.at("best").at(quantity);
        });
    return (*model).at("average").at(quantity).get<double>();
  };
  return fmt::format(
      "\nBest merge by average accuracy: {} ({:.1f} %); by average loss: {} "
      "({:.3f}).\n",
      results.at("best").at("accuracy").get<std::string>(),
      100 * average("accuracy"),
      results.at("best").at("loss").get<std::string>(),
      average("loss"));
}

void add_means(Row& row, const Json& means) {
  row.push_back(percent(means.at("accuracy")));
  row.push_back(decimals(means.at("loss")));
  row.push_back(decimals(means.at("distance")));
}

std::string removal_text(const Json& removal) {
  const std::string set = removal.at("data");
  const Json& models = removal.at("models");
  std::vector<Row> rows = {
      {"",
       set + ": accuracy, %",
       "loss",
       "distance",
       "other sets: accuracy, %",
       "loss",
       "distance",
       "clamped, %",
       "largest weight"}};
  for (const Json& model : models) {
    Row row = {model.at("name")};
    add_means(row, model.at("removed"));
    add_means(row, model.at("rest"));
    const bool has_denominators = model.contains("clamped_fraction");
    row.push_back(
        has_denominators
            ? fmt::format(
                  "{:.2f}", 100 * model["clamped_fraction"].get<double>())
            : "");
    row.push_back(
        has_denominators
            ? fmt::format("{:.3g}", model["largest_weight"].get<double>())
            : "");
    rows.push_back(std::move(row));
  }
  return fmt::format(
             "\nRemoval of {} from {}; distance of predictions from those of "
             "{}: mean total variation\n",
             set,
             removal.at("from").get<std::string>(),
             models.at(1).at("name").get<std::string>()) +
      format_table(rows);
}

} // namespace

std::string results_text(const std::string& json) {
  const Json results = parse_json(json);
  std::vector<Row> rows = {header(results)};
  for (const Json& model : results.at("models")) {
    rows.push_back(cells(results, model));
  }
  return format_table(rows) + best_text(results) +
      (results.contains("removal") ? removal_text(results["removal"]) : "");
}

} // namespace merganser
