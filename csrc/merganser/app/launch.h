#pragma once

#include <string>
#include <vector>

namespace merganser::app {

// True if `merganser-torch` is installed, as with the Python package; false in
// a build of the core alone.
bool has_torch();

// Replaces this process with `merganser-torch` and the same arguments. Throws
// Error when it is not installed.
int start_torch(char** argv);

// Replaces this process with `python -m MODULE ARGUMENTS`, which does the work
// of a command. Python is the one next to this executable, as in an environment
// in which pip installed it, or the first on the PATH. Throws Error when there
// is none; where it lacks the package, Python says so in a sentence.
int start_python(
    std::string package_module,
    const std::string& command,
    std::vector<std::string> arguments);

// The same with the arguments of a command line after the command.
int start_python(std::string package_module, char** argv);

} // namespace merganser::app
