#include "merganser/experiment/results.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/version.h"
#include "merganser/experiment/summary.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

double mean(
    const std::vector<EvalResult>& results,
    double EvalResult::*quantity) {
  double sum = 0;
  for (const EvalResult& result : results) {
    sum += result.*quantity;
  }
  return sum / static_cast<double>(results.size());
}

Json to_json(const Averages& averages) {
  return {
      {"accuracy", averages.accuracy},
      {"loss", averages.loss},
      {"accuracy_over_examples", averages.accuracy_over_examples},
      {"calibration_error", averages.calibration_error}};
}

Json sweep_to_json(const SweepResults& sweep) {
  Json json = {
      {"name", sweep.name},
      {"method", sweep.method},
      {"parameter", sweep.parameter},
      {"chosen", sweep.values[sweep.chosen].value}};
  for (const auto& [value, average] : sweep.values) {
    json["values"].push_back({{"value", value}, {"average", to_json(average)}});
  }
  return json;
}

Json model_to_json(
    const ModelResult& model,
    const std::vector<std::string>& sets) {
  Json json = {
      {"name", model.name},
      {"kind", model.kind},
      {"path", model.path.string()}};
  if (!model.method.empty()) {
    json["method"] = model.method;
    json["experts"] = model.experts;
  }
  if (model.cost) {
    json["cost"] = {
        {"examples", model.cost->examples},
        {"seconds", model.cost->seconds},
        {"bytes", model.cost->bytes}};
  }
  json["average"] = to_json(average_over_sets(model.sets));
  for (size_t i = 0; i < sets.size(); ++i) {
    json["sets"][sets[i]] = to_json(model.sets[i]);
  }
  if (!model.mismatch.empty()) {
    Json mismatch = parse_json(model.mismatch);
    mismatch.erase("model");
    json["mismatch"] = mismatch;
  }
  return json;
}

} // namespace

Json to_json(const StageRecord& record) {
  return {
      {"name", record.name},
      {"seconds", record.seconds},
      {"inputs", parse_json(record.inputs)},
      {"output", record.output}};
}

Averages average_over_sets(const std::vector<EvalResult>& sets) {
  double correct = 0;
  double examples = 0;
  for (const EvalResult& set : sets) {
    correct += set.accuracy * static_cast<double>(set.examples);
    examples += static_cast<double>(set.examples);
  }
  return {
      .accuracy = mean(sets, &EvalResult::accuracy),
      .loss = mean(sets, &EvalResult::loss),
      .accuracy_over_examples = correct / examples,
      .calibration_error = mean(sets, &EvalResult::calibration_error)};
}

const ModelResult& ExperimentResults::find(const std::string& name) const {
  return *std::ranges::find(models, name, &ModelResult::name);
}

std::string ExperimentResults::to_json() const {
  Json json = {
      {"merganser", version()}, {"sets", sets}, {"base_data", base_data}};
  for (size_t i = 0; i < sets.size(); ++i) {
    json["majority"][sets[i]] = majority[i];
  }
  for (const ModelResult& model : models) {
    json["models"].push_back(model_to_json(model, sets));
  }
  if (gap) {
    json["gap"] = {{"from", gap->from}, {"to", gap->to}};
  }
  add_share_of_gap(json);
  add_retained(json);
  for (const SweepResults& sweep : sweeps) {
    json["sweeps"].push_back(sweep_to_json(sweep));
  }
  for (const RefinementResults& refinement : refinements) {
    Json steps = {{"name", refinement.name}};
    steps.update(parse_json(refinement.report));
    json["refinements"].push_back(steps);
  }
  json["comparisons"] = parse_json(comparisons);
  if (removal) {
    json["removal"] = parse_json(removal->to_json(sets));
  }
  add_best(json);
  json["output"] = output.string();
  double seconds = 0;
  for (const StageRecord& stage : stages) {
    seconds += stage.seconds;
    json["stages"].push_back(merganser::to_json(stage));
  }
  json["seconds"] = seconds;
  json["experiment"] = experiment;
  return json_text(json, 2);
}

} // namespace merganser
