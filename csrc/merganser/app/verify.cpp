// merganser verify DIR

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/base/error.h"
#include "merganser/provenance/verify.h"

namespace merganser::app {

Work define_verify(CLI::App& parser, const CommonOptions& common) {
  auto folder = std::make_shared<std::string>();
  parser.add_option("DIR", *folder, "Directory of a model merged by merganser")
      ->required();
  return [folder, &common] {
    const Verification found = verify(*folder);
    if (common.json) {
      fmt::print("{}\n", found.to_json());
    } else if (!common.quiet || !found.good()) {
      fmt::print("{}", found.to_text());
    }
    if (!found.good()) {
      throw Error(fmt::format("{} differs from what was merged", *folder));
    }
  };
}

} // namespace merganser::app
