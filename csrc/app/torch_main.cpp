// The executable `merganser-torch`: the verbs that need torch. Users call
// `merganser`, which starts it.

#include <cstdio>

#include "app/command.h"
#include "app/verbs.h"

int main(int argc, char** argv) {
  using namespace merganser::app;
  constexpr VerbDefinition kTorchVerbs[] = {
      {"train", define_train},
      {"fisher", define_fisher},
      {"eval", define_eval},
      {"run", define_run},
  };
  const auto elsewhere = [](char** arguments) {
    std::fprintf(stderr, "merganser-torch: run merganser %s\n", arguments[1]);
    return 2;
  };
  return run_program(argc, argv, kTorchVerbs, elsewhere);
}
