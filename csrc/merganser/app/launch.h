#pragma once

namespace merganser::app {

// Replaces this process with `merganser-torch` and the same arguments. Throws
// Error when it is not installed.
int start_torch(char** argv);

// Replaces this process with `python -m MODULE` and the arguments after the
// command. Python is the one next to this executable, as in an environment in
// which pip installed it, or the first on the PATH. Throws Error when there is
// none; where it lacks the package, Python says so in a sentence.
int start_python(const char* package_module, char** argv);

} // namespace merganser::app
