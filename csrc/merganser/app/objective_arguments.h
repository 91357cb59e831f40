#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "merganser/objective/objective_options.h"

namespace CLI {
class App;
}

namespace merganser::app {

// The options of the joint objective on the command line.
struct ObjectiveArguments {
  std::vector<std::filesystem::path> experts;
  std::vector<std::filesystem::path> data; // one per expert
  std::vector<std::filesystem::path> fishers; // one per expert, or none
  std::vector<double> weights; // one per expert, one for all, or none: 1
  ObjectiveOptions options; // without tasks

  // Throws InputError where the numbers of files do not match.
  ObjectiveOptions objective() const;
};

void add_objective_arguments(CLI::App& parser, ObjectiveArguments& arguments);

} // namespace merganser::app
