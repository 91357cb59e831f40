// merganser merge RECIPE OUT

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "app/verbs.h"
#include "io/progress.h"
#include "merge/engine.h"

namespace merganser::app {
namespace {

struct Options {
  std::string recipe;
  std::string out;
  int threads = 0;
};

void merge(const Options& options, const CommonOptions& common) {
  const MergePlan plan(Recipe::load(options.recipe));
  if (common.verbose) {
    fmt::print(stderr, "{}", plan.to_text());
  }
  MergeReport report;
  {
    ProgressBar bar("merge", "MB", common.quiet);
    report = execute_merge(plan, options.out, options.threads, bar.callback());
  }
  if (common.json) {
    fmt::print("{}\n", report.to_json());
  } else if (!common.quiet) {
    fmt::print("{}", report.to_text());
  }
}

} // namespace

Work define_merge(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  parser.add_option("RECIPE", options->recipe, "Recipe (YAML)")->required();
  parser
      .add_option(
          "OUT", options->out, "Folder to make: a Hugging Face model directory")
      ->required();
  parser.add_option("--threads", options->threads, "Threads; 0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  return [options, &common] { merge(*options, common); };
}

} // namespace merganser::app
