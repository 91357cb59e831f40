// merganser methods

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/recipe/methods.h"

namespace merganser::app {

Work define_methods(CLI::App& parser, const CommonOptions& common) {
  auto markdown = std::make_shared<bool>(false);
  parser.add_flag(
      "--markdown", *markdown, "Print the table of docs/recipes.md");
  return [markdown, &common] {
    fmt::print(
        "{}",
        common.json     ? methods_json() + "\n"
            : *markdown ? methods_markdown()
                        : methods_text());
  };
}

} // namespace merganser::app
