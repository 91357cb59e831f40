#pragma once

#include <filesystem>

#include "merganser/base/api.h"
#include "merganser/experiment/events.h"
#include "merganser/experiment/results.h"
#include "merganser/experiment/settings.h"

namespace merganser {

// Trains the base, the experts from it and the target, estimates their Fishers,
// merges the experts and evaluates every model on every test set. In `out`:
//
//   models/NAME               base, one expert per data set, target
//   fishers/NAME.safetensors
//   grams/NAME.safetensors    of base and experts, if a merge uses them
//   merges/NAME/recipe.yaml   a recipe for `merganser merge`
//   merges/NAME/model
//   data.json                 examples per label
//   evaluations/NAME.json
//   evaluations/NAME.safetensors  class probabilities
//   mismatches/NAME.json      if requested, of the same models
//   removals/NAME.json        if requested, of the models of `removal`
//   comparisons.json          paired statistics of all pairs of models
//   results.json
//   .stages/                  inputs and outcome of each stage
//
// Every stage is stored with the hash of its inputs (settings, contents of
// files, program version) and runs again only when they change. After an
// interruption, the next call resumes there and ends with the same bytes.
// Returns the text of results.json.
MERGANSER_API std::string run_experiment(
    const Experiment& experiment,
    const std::filesystem::path& out,
    const ExperimentEvents& events);

} // namespace merganser
