// The executable `merganser`. It links the torch-free core only, so that merge,
// plan and inspect start in milliseconds. merganser-torch has the other
// commands and replaces this process on demand; report is the Python package's.

#include <string_view>

#include "merganser/app/commands.h"
#include "merganser/app/launch.h"
#include "merganser/app/program.h"

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
    return std::string_view(arguments[1]) == "report" ? start_report(arguments)
                                                      : start_torch(arguments);
  };
  return run_program(argc, argv, commands, elsewhere);
}
