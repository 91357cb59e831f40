#include "merganser/experiment/summary.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

double average(const Json& model, const char* quantity) {
  return model.at("average").at(quantity);
}

double accuracy_of(const Json& results, const std::string& name) {
  for (const Json& model : results.at("models")) {
    if (model.at("name") == name) {
      return average(model, "accuracy");
    }
  }
  return 0; // `gap` names models of the table
}

std::string best_merge(
    const Json& results,
    const std::function<bool(const Json& a, const Json& b)>& better) {
  const Json* best = nullptr;
  for (const Json& model : results.at("models")) {
    if (model.at("kind") == "merge" &&
        (best == nullptr || better(model, *best))) {
      best = &model;
    }
  }
  return best->at("name");
}

} // namespace

void add_share_of_gap(Json& results) {
  if (!results.contains("gap")) {
    return;
  }
  const double from = accuracy_of(results, results["gap"]["from"]);
  const double to = accuracy_of(results, results["gap"]["to"]);
  if (from == to) {
    return;
  }
  for (Json& model : results["models"]) {
    model["share_of_gap"] = (average(model, "accuracy") - from) / (to - from);
  }
}

void add_retained(Json& results) {
  const std::string set = results.at("base_data");
  const auto accuracy = [&](const Json& model) {
    return model.at("sets").at(set).at("accuracy").get<double>();
  };
  const double base = accuracy(results.at("models").front());
  if (base == 0) {
    return;
  }
  for (Json& model : results["models"]) {
    model["retained"] = accuracy(model) / base;
  }
}

void add_best(Json& results) {
  results["best"] = {
      {"accuracy",
       best_merge(
           results,
           [](const Json& a, const Json& b) {
             return average(a, "accuracy") > average(b, "accuracy");
           })},
      {"loss", best_merge(results, [](const Json& a, const Json& b) {
         return average(a, "loss") < average(b, "loss");
       })}};
}

} // namespace merganser
