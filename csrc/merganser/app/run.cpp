// merganser run EXPERIMENT OUT

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "merganser/app/commands.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/experiment/experiment.h"

namespace merganser::app {
namespace {

struct Options {
  std::string experiment;
  std::string out;
  std::vector<std::string> assignments;
};

// Prints a line per stage, and a progress bar while one works.
class Narrator {
 public:
  explicit Narrator(bool quiet) : quiet_(quiet) {}

  ExperimentEvents events() {
    return {
        .begin =
            [this](const std::string& stage, const std::string& unit) {
              bar_.emplace(stage, unit, quiet_);
              return bar_->callback();
            },
        .end = [this](const StageRecord& record) { end(record); }};
  }

 private:
  void end(const StageRecord& record) {
    if (bar_) {
      bar_->erase(); // the line below takes its place
      bar_.reset();
    }
    if (!quiet_) {
      fmt::print(
          stderr,
          "{:<32} {}\n",
          record.name,
          record.cached ? "cached"
                        : fmt::format("done in {:.1f} s", record.seconds));
    }
  }

  bool quiet_;
  std::optional<ProgressBar> bar_;
};

void run(const Options& options, const CommonOptions& common) {
  const Experiment experiment =
      Experiment::load(options.experiment, options.assignments);
  Narrator narrator(common.quiet);
  const std::string results =
      run_experiment(experiment, options.out, narrator.events());
  if (common.json) {
    fmt::print("{}\n", results);
    return;
  }
  const std::filesystem::path out = options.out;
  fmt::print(
      "\n{}Results: {}\n",
      results_text(results),
      (out / "results.json").string());
  const nlohmann::ordered_json output = parse_json(results).at("output");
  // A list where there are several seeds.
  for (const auto& merged : output) {
    fmt::print(
        "Merged model: {}\n", (out / merged.get<std::string>()).string());
  }
}

} // namespace

Work define_run(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  parser.add_option("EXPERIMENT", options->experiment, "Experiment (YAML)")
      ->required();
  parser
      .add_option(
          "OUT",
          options->out,
          "Directory for models, Fishers, merges and results; reuses those of "
          "an earlier run")
      ->required();
  parser
      .add_option(
          "--set",
          options->assignments,
          "Replaces a value of EXPERIMENT, e.g. target.epochs=2; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return [options, &common] { run(*options, common); };
}

} // namespace merganser::app
