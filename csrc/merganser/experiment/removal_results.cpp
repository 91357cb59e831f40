#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/experiment/results.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

struct Means {
  double accuracy = 0;
  double loss = 0;
  double distance = 0;
};

// Over the set taken out, or over the others, each of which counts the same.
Means mean_over(const RemovalModel& model, size_t removed, bool rest) {
  Means means;
  double count = 0;
  for (size_t i = 0; i < model.distances.size(); ++i) {
    if ((i == removed) != rest) {
      means.accuracy += model.result.sets[i].accuracy;
      means.loss += model.result.sets[i].loss;
      means.distance += model.distances[i];
      ++count;
    }
  }
  return {means.accuracy / count, means.loss / count, means.distance / count};
}

Json means_to_json(const Means& means) {
  return {
      {"accuracy", means.accuracy},
      {"loss", means.loss},
      {"distance", means.distance}};
}

Json model_to_json(
    const RemovalModel& model,
    size_t removed,
    const std::vector<std::string>& sets) {
  Json json = {
      {"name", model.result.name},
      {"kind", model.result.kind},
      {"path", model.result.path.string()},
      {"removed", means_to_json(mean_over(model, removed, false))},
      {"rest", means_to_json(mean_over(model, removed, true))}};
  for (size_t i = 0; i < sets.size(); ++i) {
    json["sets"][sets[i]] = means_to_json(mean_over(model, i, false));
  }
  if (model.clamped_fraction) {
    json["clamped_fraction"] = *model.clamped_fraction;
  }
  return json;
}

void add_cells(std::vector<std::string>& row, const Means& means) {
  row.push_back(fmt::format("{:5.1f}", 100 * means.accuracy));
  row.push_back(fmt::format("{:.3f}", means.loss));
  row.push_back(fmt::format("{:.3f}", means.distance));
}

} // namespace

std::string RemovalResults::to_text(
    const std::vector<std::string>& sets) const {
  std::vector<std::vector<std::string>> rows = {
      {"",
       sets[set] + ": accuracy, %",
       "loss",
       "distance",
       "other sets: accuracy, %",
       "loss",
       "distance",
       "clamped, %"}};
  for (const RemovalModel& model : models) {
    std::vector<std::string> row = {model.result.name};
    add_cells(row, mean_over(model, set, false));
    add_cells(row, mean_over(model, set, true));
    row.push_back(
        model.clamped_fraction
            ? fmt::format("{:.2f}", 100 * *model.clamped_fraction)
            : "");
    rows.push_back(std::move(row));
  }
  return fmt::format(
             "Removal of {} from {}; distance of predictions from those of "
             "{}: mean total variation\n",
             sets[set],
             models[0].result.name,
             models[1].result.name) +
      format_table(rows);
}

std::string RemovalResults::to_json(
    const std::vector<std::string>& sets) const {
  Json json = {{"data", sets[set]}, {"from", models[0].result.name}};
  for (const RemovalModel& model : models) {
    json["models"].push_back(model_to_json(model, set, sets));
  }
  return json_text(json);
}

} // namespace merganser
