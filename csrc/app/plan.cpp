// merganser plan RECIPE

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "app/verbs.h"
#include "merge/plan.h"

namespace merganser::app {

Work define_plan(CLI::App& parser, const CommonOptions& common) {
  auto recipe = std::make_shared<std::string>();
  parser.add_option("RECIPE", *recipe, "Recipe (YAML)")->required();
  return [recipe, &common] {
    const MergePlan plan(Recipe::load(*recipe));
    if (common.json) {
      fmt::print("{}\n", plan.to_json());
    } else {
      fmt::print("{}", plan.to_text());
    }
  };
}

} // namespace merganser::app
