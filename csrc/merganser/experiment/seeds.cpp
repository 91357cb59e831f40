#include "merganser/experiment/seeds.h"

#include <fmt/format.h>

#include "merganser/base/json_text.h"
#include "merganser/base/version.h"
#include "merganser/experiment/comparison_stage.h"
#include "merganser/experiment/experiment.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/seed_statistics.h"
#include "merganser/experiment/stage_runner.h"
#include "merganser/experiment/summary.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

std::string label(uint64_t seed) {
  return fmt::format("seed {}: ", seed);
}

ExperimentEvents events_of(uint64_t seed, const ExperimentEvents& events) {
  return {
      .begin =
          [=](const std::string& stage, const std::string& unit) {
            return events.begin(label(seed) + stage, unit);
          },
      .end =
          [=](StageRecord record) {
            record.name = label(seed) + record.name;
            events.end(record);
          }};
}

// The same part of all seeds' results.
template <typename Part>
std::vector<Json> parts(const std::vector<Json>& seeds, const Part& part) {
  std::vector<Json> found;
  for (const Json& results : seeds) {
    found.push_back(part(results));
  }
  return found;
}

// Means over the seeds of the models in a part of the results, with the
// standard errors of some of their values.
Json combine_models(
    const std::vector<Json>& seeds,
    const std::vector<const char*>& with_errors) {
  Json models = Json::array();
  for (size_t i = 0; i < seeds[0].at("models").size(); ++i) {
    const auto all =
        parts(seeds, [&](const Json& results) { return results["models"][i]; });
    Json model = mean_over_seeds(all);
    model.erase("path");
    for (const char* share : {"share_of_gap", "retained"}) {
      model.erase(share); // added to the means by run_seeds
    }
    if (seeds.size() > 1) {
      const Json errors = standard_error_over_seeds(all);
      for (const char* key : with_errors) {
        model["standard_error"][key] = errors[key];
      }
    }
    models.push_back(model);
  }
  return models;
}

Json combine_removals(const std::vector<Json>& seeds) {
  const auto removals =
      parts(seeds, [](const Json& one) { return one.at("removal"); });
  Json removal = removals[0]; // the set and the model are those of all
  removal["models"] = combine_models(removals, {"removed", "rest", "sets"});
  return removal;
}

Json combine_sweeps(const std::vector<Json>& seeds) {
  Json sweeps = Json::array();
  for (size_t i = 0; i < seeds[0]["sweeps"].size(); ++i) {
    const auto all =
        parts(seeds, [&](const Json& results) { return results["sweeps"][i]; });
    sweeps.push_back(mean_over_seeds(all));
    sweeps.back()["chosen"] =
        parts(all, [](const Json& sweep) { return sweep["chosen"]; });
  }
  return sweeps;
}

void add_stages(
    Json& results,
    const std::vector<uint64_t>& numbers,
    const std::vector<Json>& seeds,
    const StageRunner& own) {
  for (size_t i = 0; i < seeds.size(); ++i) {
    for (Json stage : seeds[i].at("stages")) {
      stage["name"] = label(numbers[i]) + stage["name"].get<std::string>();
      results["stages"].push_back(stage);
    }
  }
  for (const StageRecord& stage : own.records()) {
    results["stages"].push_back(to_json(stage));
  }
  double seconds = 0;
  for (const Json& stage : results["stages"]) {
    seconds += stage["seconds"].get<double>();
  }
  results["seconds"] = seconds;
}

} // namespace

std::string run_seeds(
    const Experiment& experiment,
    const fs::path& out,
    const ExperimentEvents& events) {
  StageRunner runner(out, events);
  fs::remove(out / layout::kResults);
  ComparisonTask comparison{
      .folder = out,
      .experiments = {},
      .models = {},
      .sets = {},
      .seed = experiment.seeds[0].seed};
  std::vector<uint64_t> numbers;
  std::vector<Json> seeds;
  Json outputs;
  for (const Experiment& one : experiment.seeds) {
    numbers.push_back(one.seed);
    const std::string folder = layout::seed(one.seed);
    comparison.experiments.push_back(out / folder);
    seeds.push_back(parse_json(
        run_experiment(one, out / folder, events_of(one.seed, events))));
    outputs.push_back(folder + "/" + seeds.back()["output"].get<std::string>());
  }
  const auto mean_of = [&](const char* key) {
    return mean_over_seeds(
        parts(seeds, [&](const Json& one) { return one.at(key); }));
  };
  Json results = {
      {"merganser", version()},
      {"seeds", numbers},
      {"sets", seeds[0]["sets"]},
      {"base_data", seeds[0]["base_data"]},
      {"majority", mean_of("majority")},
      {"models", combine_models(seeds, {"average", "sets"})}};
  if (seeds[0].contains("gap")) {
    results["gap"] = seeds[0]["gap"];
  }
  add_share_of_gap(results);
  add_retained(results);
  if (seeds[0].contains("sweeps")) {
    results["sweeps"] = combine_sweeps(seeds);
  }
  comparison.sets = results["sets"];
  for (const Json& model : results["models"]) {
    comparison.models.push_back(model["name"]);
  }
  results["comparisons"] = compare_models(runner, comparison);
  if (seeds[0].contains("removal")) {
    results["removal"] = combine_removals(seeds);
  }
  add_best(results);
  results["output"] = outputs;
  add_stages(results, numbers, seeds, runner);
  results["experiment"] = experiment.text;
  std::string json = json_text(results, 2);
  write_file(out / layout::kResults, json + "\n");
  return json;
}

} // namespace merganser
