// merganser run EXPERIMENT OUT

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "merganser/app/commands.h"
#include "merganser/base/progress.h"
#include "merganser/experiment/experiment.h"

namespace merganser::app {
namespace {

struct Options {
  std::string experiment;
  std::string out;
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
  const Experiment experiment = Experiment::load(options.experiment);
  Narrator narrator(common.quiet);
  const ExperimentResults results =
      run_experiment(experiment, options.out, narrator.events());
  if (common.json) {
    fmt::print("{}\n", results.to_json());
    return;
  }
  fmt::print(
      "\n{}Results: {}\nMerged model: {}\n",
      results.to_text(),
      (std::filesystem::path(options.out) / "results.json").string(),
      (options.out / results.output).string());
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
  return [options, &common] { run(*options, common); };
}

} // namespace merganser::app
