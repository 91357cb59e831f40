// The executable `merganser`. It links the torch-free core only, so that merge,
// plan and inspect start in milliseconds; the other verbs are in
// merganser-torch, which it becomes when one is asked for.

#include "merganser/app/command.h"
#include "merganser/app/launch.h"
#include "merganser/app/verbs.h"

int main(int argc, char** argv) {
  using namespace merganser::app;
  const VerbDefinition verbs[] = {
      {"merge", define_merge},
      {"plan", define_plan},
      {"methods", define_methods},
      {"inspect", define_inspect},
      {"verify", define_verify},
  };
  return run_program(argc, argv, verbs, start_torch);
}
