// merganser plan RECIPE

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/size_option.h"
#include "merganser/engine/buffer_memory.h"
#include "merganser/plan/plan_text.h"
#include "merganser/plan/planner.h"

namespace merganser::app {

Work define_plan(CLI::App& parser, const CommonOptions& common) {
  struct Options {
    std::string recipe;
    int threads = 0;
    uint64_t memory = kDefaultMemory;
  };
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
