#include "merganser/experiment/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/version.h"

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

// The best merge, the first of equals.
const ModelResult& best_merge(
    const std::vector<ModelResult>& models,
    const std::function<bool(const ModelResult&, const ModelResult&)>& better) {
  return *std::ranges::min_element(
      models, [&](const ModelResult& a, const ModelResult& b) {
        const bool merges[] = {a.kind == "merge", b.kind == "merge"};
        return merges[0] == merges[1] ? better(a, b) : merges[0];
      });
}

Json model_to_json(
    const ModelResult& model,
    const std::vector<std::string>& sets) {
  Json json = {
      {"name", model.name},
      {"kind", model.kind},
      {"path", model.path.string()},
      {"average",
       {{"accuracy", model.average_accuracy()},
        {"loss", model.average_loss()},
        {"accuracy_over_examples", model.example_accuracy()}}}};
  for (size_t i = 0; i < sets.size(); ++i) {
    const EvalResult& result = model.sets[i];
    json["sets"][sets[i]] = {
        {"examples", result.examples},
        {"accuracy", result.accuracy},
        {"loss", result.loss}};
  }
  if (!model.mismatch.empty()) {
    Json mismatch = parse_json(model.mismatch);
    mismatch.erase("model");
    json["mismatch"] = mismatch;
  }
  return json;
}

// The norms of a model's mismatch as two cells of the table.
std::string mismatch_cells(const ModelResult& model) {
  if (model.mismatch.empty()) {
    return "";
  }
  const Json mismatch = parse_json(model.mismatch)["total"]["mismatch"];
  return fmt::format(
      "  {:>9.4g}  {:>9.4g}",
      mismatch["norm"].get<double>(),
      mismatch["h0_inverse_norm"].get<double>());
}

} // namespace

double ModelResult::average_accuracy() const {
  return mean(sets, &EvalResult::accuracy);
}

double ModelResult::average_loss() const {
  return mean(sets, &EvalResult::loss);
}

double ModelResult::example_accuracy() const {
  double correct = 0;
  double examples = 0;
  for (const EvalResult& set : sets) {
    correct += set.accuracy * static_cast<double>(set.examples);
    examples += static_cast<double>(set.examples);
  }
  return correct / examples;
}

const ModelResult& ExperimentResults::find(const std::string& name) const {
  return *std::ranges::find(models, name, &ModelResult::name);
}

const ModelResult& ExperimentResults::best_by_accuracy() const {
  return best_merge(models, [](const ModelResult& a, const ModelResult& b) {
    return a.average_accuracy() > b.average_accuracy();
  });
}

const ModelResult& ExperimentResults::best_by_loss() const {
  return best_merge(models, [](const ModelResult& a, const ModelResult& b) {
    return a.average_loss() < b.average_loss();
  });
}

std::string ExperimentResults::to_text() const {
  size_t width = 0;
  for (const ModelResult& model : models) {
    width = std::max(width, model.name.size());
  }
  const auto cells = [&](const std::string& name, const std::string& kind) {
    return fmt::format("{:<{}}  {:<6}", name, width, kind);
  };
  std::string text = cells("accuracy, %", "");
  for (const std::string& set : sets) {
    text += fmt::format("  {:>7}", set);
  }
  text += fmt::format("  {:>7}  {:>6}", "average", "loss");
  if (std::ranges::any_of(
          models, [](const auto& model) { return !model.mismatch.empty(); })) {
    text += fmt::format("  {:>9}  {:>9}", "mismatch", "in 1/H0");
  }
  text += "\n";
  for (const ModelResult& model : models) {
    text += cells(model.name, model.kind);
    for (size_t i = 0; i < sets.size(); ++i) {
      text += fmt::format(
          "  {:>{}.1f}",
          100 * model.sets[i].accuracy,
          std::max<size_t>(7, sets[i].size()));
    }
    text += fmt::format(
        "  {:>7.1f}  {:>6.3f}{}\n",
        100 * model.average_accuracy(),
        model.average_loss(),
        mismatch_cells(model));
  }
  const ModelResult& accurate = best_by_accuracy();
  const ModelResult& likely = best_by_loss();
  return text +
      fmt::format(
             "\nBest merge by average accuracy: {} ({:.1f} %); by average "
             "loss: {} ({:.3f}).\n",
             accurate.name,
             100 * accurate.average_accuracy(),
             likely.name,
             likely.average_loss()) +
      (removal ? "\n" + removal->to_text(sets) : "");
}

std::string ExperimentResults::to_json() const {
  Json json = {{"merganser", version()}, {"sets", sets}};
  for (size_t i = 0; i < sets.size(); ++i) {
    json["majority"][sets[i]] = majority[i];
  }
  for (const ModelResult& model : models) {
    json["models"].push_back(model_to_json(model, sets));
  }
  if (removal) {
    json["removal"] = parse_json(removal->to_json(sets));
  }
  json["best"] = {
      {"accuracy", best_by_accuracy().name}, {"loss", best_by_loss().name}};
  json["output"] = output.string();
  double seconds = 0;
  for (const StageRecord& stage : stages) {
    seconds += stage.seconds;
    json["stages"].push_back(
        {{"name", stage.name},
         {"seconds", stage.seconds},
         {"inputs", parse_json(stage.inputs)},
         {"output", stage.output}});
  }
  json["seconds"] = seconds;
  json["experiment"] = experiment;
  return json_text(json, 2);
}

} // namespace merganser
