#pragma once

#include <filesystem>
#include <string>

#include "merganser/experiment/events.h"
#include "merganser/experiment/settings.h"

namespace merganser {

// Runs experiment.seeds, each in out/seeds/SEED, and writes out/results.json:
// means and standard errors over the seeds, and comparisons of the pooled
// examples. Returns its text.
std::string run_seeds(
    const Experiment& experiment,
    const std::filesystem::path& out,
    const ExperimentEvents& events);

} // namespace merganser
