// merganser merge RECIPE OUT

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/size_option.h"
#include "merganser/base/error.h"
#include "merganser/base/progress.h"
#include "merganser/engine/execute.h"

namespace merganser::app {
namespace {

struct Options {
  std::string recipe;
  std::string out;
  MergeOptions merge;
  uint64_t shard_bytes = 0; // 0: not given
};

void merge(const Options& options, const CommonOptions& common) {
  const MergePlan plan = make_plan(Recipe::load(options.recipe));
  if (common.verbose) {
    const BufferMemory memory =
        fit_threads(plan, options.merge.threads, options.merge.memory);
    fmt::print(stderr, "{}", plan_text(plan, memory));
  }
  MergeOptions merge = options.merge;
  if (options.shard_bytes > 0) {
    merge.shard_bytes = options.shard_bytes;
  }
  MergeReport report;
  try {
    ProgressBar bar("merge", "MB", common.quiet);
    report = execute_merge(plan, options.out, merge, bar.callback());
  } catch (const Interrupted&) {
    throw Interrupted("interrupted; rerun with --resume to continue");
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
      .add_option("OUT", options->out, "Output: a Hugging Face model directory")
      ->required();
  parser
      .add_option(
          "--threads",
          options->merge.threads,
          "Number of threads; 0: all cores")
      ->check(whole_number(0, 1024))
      ->capture_default_str();
  add_size(
      parser,
      "--memory",
      options->merge.memory,
      "Memory limit for buffers",
      "256MiB",
      /*kb_is_1000=*/false);
  add_size(
      parser,
      "--shard-size",
      options->shard_bytes,
      "Size limit of one file; by default the base's",
      "5GB",
      /*kb_is_1000=*/true,
      /*of_mergekit=*/true);
  parser.add_flag(
      "--resume",
      options->merge.resume,
      "Resume an interrupted merge (from OUT.merging)");
  parser.add_flag(
      "--allow-nonfinite",
      options->merge.allow_nonfinite,
      "Merge and count NaN and infinities instead of failing");
  return [options, &common] { merge(*options, common); };
}

} // namespace merganser::app
