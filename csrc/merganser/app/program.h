#pragma once

#include <span>
#include <string_view>

#include "merganser/app/commands.h"

// Arguments, help, messages and exit codes, shared by the two executables.
namespace merganser::app {

struct CommandDefinition {
  std::string_view name; // a row of kCommands
  DefineCommand define;
};

// The whole of main(): `PROGRAM COMMAND ...` with the commands of this
// executable; common options may also stand before the command. `elsewhere`
// gets the arguments (argv[1] the command) when the other executable has it,
// and returns the exit code.
int run_program(
    int argc,
    char** argv,
    std::span<const CommandDefinition> commands,
    int (*elsewhere)(char** argv));

} // namespace merganser::app
