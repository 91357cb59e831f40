// The executable `merganser-torch`: the commands that need torch. Users call
// `merganser`, which starts it.

#include <malloc.h>

#include <cstdio>

#include "merganser/app/commands.h"
#include "merganser/app/program.h"

int main(int argc, char** argv) {
  using namespace merganser::app;
  constexpr CommandDefinition kTorchCommands[] = {
      {"train", define_train},
      {"fisher", define_fisher},
      {"gram", define_gram},
      {"calibrate", define_calibrate},
      {"eval", define_eval},
      {"mismatch", define_mismatch},
      {"subspace", define_subspace},
      {"refine", define_refine},
      {"posterior", define_posterior},
      {"search", define_search},
      {"run", define_run},
  };
  const auto elsewhere = [](char** arguments) {
    std::fprintf(stderr, "merganser-torch: run merganser %s\n", arguments[1]);
    return 2;
  };
  // Every batch allocates and frees activations: the process keeps their pages,
  // which the system would otherwise clear every time.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  return run_program(argc, argv, kTorchCommands, elsewhere);
}
