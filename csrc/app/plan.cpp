// merganser plan RECIPE

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "app/verbs.h"
#include "merge/plan.h"

namespace merganser::app {

Work define_plan(CLI::App& parser, const CommonOptions& common) {
  struct Options {
    std::string recipe;
    int threads = 0;
  };
  auto options = std::make_shared<Options>();
  parser.add_option("RECIPE", options->recipe, "Recipe (YAML)")->required();
  parser
      .add_option(
          "--threads",
          options->threads,
          "As merge would be given; 0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  return [options, &common] {
    const MergePlan plan(Recipe::load(options->recipe));
    if (common.json) {
      fmt::print("{}\n", plan.to_json(options->threads));
    } else {
      fmt::print("{}", plan.to_text(options->threads));
    }
  };
}

} // namespace merganser::app
