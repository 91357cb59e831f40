// The executable `merganser`. It links the torch-free core only, so that merge,
// plan and inspect start in milliseconds. merganser-torch has the other
// commands and replaces this process on demand; report, download and the fisher
// commands that read optimizer states and other programs' files are the Python
// package's.

#include <algorithm>
#include <array>
#include <string_view>

#include "merganser/app/commands.h"
#include "merganser/app/launch.h"
#include "merganser/app/program.h"

namespace {

// True if an option says that a Fisher is read from a file instead of estimated
// on data.
bool reads_fisher(char** argv) {
  constexpr std::array<std::string_view, 2> kOptions = {
      "--from-checkpoint", "--import"};
  for (char** argument = argv + 2; *argument != nullptr; ++argument) {
    const std::string_view text = *argument;
    if (std::ranges::find(kOptions, text.substr(0, text.find('='))) !=
        kOptions.end()) {
      return true;
    }
  }
  return false;
}

} // namespace

int main(int argc, char** argv) {
  using namespace merganser::app;
  const CommandDefinition commands[] = {
      {"merge", define_merge},
      {"plan", define_plan},
      {"methods", define_methods},
      {"inspect", define_inspect},
      {"verify", define_verify},
  };
  const auto elsewhere = [](char** arguments) {
    const std::string_view command = arguments[1];
    if (command == "report") {
      return start_python("merganser.report", arguments);
    }
    if (command == "download") {
      return start_python("merganser._hub", arguments);
    }
    if (command == "fisher" && reads_fisher(arguments)) {
      return start_python("merganser._checkpoint", arguments);
    }
    return start_torch(arguments);
  };
  return run_program(argc, argv, commands, elsewhere);
}
