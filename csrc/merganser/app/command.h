#pragma once

#include <functional>
#include <span>
#include <string_view>

namespace CLI {
class App;
}

// What the verbs of both executables share: options, messages, exit codes.
namespace merganser::app {

struct CommonOptions {
  bool quiet = false; // no progress on stderr
  bool verbose = false; // more of it
  bool json = false; // the result on stdout for machines
};

// A verb's own options and arguments, added to `parser`; returns the work to do
// once they are parsed. The work returns normally (exit code 0) or throws:
// InputError for exit code 2, anything else for 1.
using Work = std::function<void()>;
using DefineVerb = Work (*)(CLI::App& parser, const CommonOptions& common);

struct VerbDefinition {
  std::string_view name; // a row of verbs.h
  DefineVerb define;
};

// The whole of main(): `PROGRAM VERB ...` with the verbs of this executable;
// common options may also stand before the verb. `elsewhere` gets the arguments
// (argv[1] the verb) when the verb is one of the other executable, and returns
// the exit code.
int run_program(
    int argc,
    char** argv,
    std::span<const VerbDefinition> verbs,
    int (*elsewhere)(char** argv));

} // namespace merganser::app
