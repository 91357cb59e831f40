// merganser plan RECIPE

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "merganser/app/commands.h"
#include "merganser/app/launch.h"
#include "merganser/app/size_option.h"
#include "merganser/engine/buffer_memory.h"
#include "merganser/io/hub_cache.h"
#include "merganser/plan/plan_text.h"
#include "merganser/plan/planner.h"

namespace merganser::app {
namespace {

struct Options {
  std::string recipe;
  int threads = 0;
  uint64_t memory = kDefaultMemory;
};

// The Python package plans with models that the Hub's cache lacks.
int plan_in_python(const Options& options, const CommonOptions& common) {
  std::vector<std::string> arguments = {
      fmt::format("--threads={}", options.threads),
      fmt::format("--memory={}", options.memory)};
  if (common.json) {
    arguments.emplace_back("--json");
  }
  if (common.quiet) {
    arguments.emplace_back("--quiet");
  }
  arguments.insert(arguments.end(), {"--", options.recipe});
  return start_python(
      "merganser._hub.plan_command", "plan", std::move(arguments));
}

} // namespace

Work define_plan(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  parser.add_option("RECIPE", options->recipe, "Recipe (YAML)")->required();
  parser
      .add_option(
          "--threads",
          options->threads,
          "Number of threads of the merge; 0: all cores")
      ->check(whole_number(0, 1024))
      ->capture_default_str();
  add_size(
      parser,
      "--memory",
      options->memory,
      "Memory limit for the merge's buffers",
      "256MiB",
      /*kb_is_1000=*/false);
  return [options, &common] {
    const HubFinder finder = [&](const std::string&,
                                 const HubModel&) -> std::filesystem::path {
      plan_in_python(*options, common);
      return {}; // not reached
    };
    std::optional<HubFinderScope> scope;
    if (has_torch()) { // and with it the package
      scope.emplace(finder);
    }
    const MergePlan plan = make_plan(Recipe::load(options->recipe));
    const BufferMemory memory =
        fit_threads(plan, options->threads, options->memory);
    if (common.json) {
      fmt::print("{}\n", plan_json(plan, memory));
    } else {
      fmt::print("{}", plan_text(plan, memory));
    }
  };
}

} // namespace merganser::app
