#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/experiment/results.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

struct Means {
  double accuracy = 0;
  double loss = 0;
  double distance = 0;
};

// Averages over the removed set, or over the others, each of which counts the
// same.
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
  if (model.denominators) {
    json["clamped_fraction"] = model.denominators->clamped_fraction;
    json["largest_weight"] = model.denominators->largest_weight;
  }
  return json;
}

} // namespace

std::string RemovalResults::to_json(
    const std::vector<std::string>& sets) const {
  Json json = {{"data", sets[set]}, {"from", models[0].result.name}};
  for (const RemovalModel& model : models) {
    json["models"].push_back(model_to_json(model, set, sets));
  }
  return json_text(json);
}

} // namespace merganser
