// merganser search RECIPE --over KEY=LOW..HIGH --data F ... --out DIR

#include "merganser/search/search.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/error.h"
#include "merganser/base/progress.h"

namespace merganser::app {
namespace {

void run_search(const SearchOptions& options, const CommonOptions& common) {
  SearchResult result;
  try {
    ProgressBar bar("search", "trials", common.quiet);
    result = search(options, bar.callback());
  } catch (const Interrupted&) {
    throw Interrupted("interrupted; rerun the command to continue");
  }
  if (common.json) {
    fmt::print("{}\n", result.to_json());
  } else {
    fmt::print("{}", result.to_text());
  }
}

} // namespace

Work define_search(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<SearchOptions>();
  SearchOptions& o = *options;
  parser.add_option("RECIPE", o.recipe, "Recipe (YAML)")->required();
  parser
      .add_option(
          "--over",
          o.over,
          "Parameter and its range or values, e.g. weight=0.1..2:log, "
          "models.*.weight=0..1 or density=0.3,0.5; repeatable")
      ->type_name("KEY=VALUES")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->required();
  parser
      .add_option(
          "--data", o.data, "Labelled validation data: .jsonl, .csv, .tsv")
      ->required();
  parser
      .add_option(
          "--out",
          o.out,
          "Directory for trials.jsonl and best.yaml; continues an earlier "
          "search there")
      ->required();
  parser
      .add_option(
          "--trials",
          o.trials,
          "Number of trials after the recipe's own values")
      ->capture_default_str();
  parser
      .add_option_function<std::string>(
          "--objective",
          [&o](const std::string& name) { o.by_loss = parse_by_loss(name); },
          "What to improve, as a mean over the data files: loss or accuracy")
      ->default_str("loss");
  add_limit(parser, o.limit, "Number of examples per data file; -1: all");
  add_seed(parser, o.seed, "Random seed of trials and examples");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, o.max_length);
  add_dtype(parser, o.bfloat16);
  return [options, &common] { run_search(*options, common); };
}

} // namespace merganser::app
