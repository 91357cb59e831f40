#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/objective/refine_options.h"
#include "merganser/objective/refine_result.h"
#include "merganser/train/train_state.h"

namespace merganser {

// State of a refinement at an evaluated step.
struct RefineState {
  std::vector<RefineStep> steps;
  size_t kept = 0;
  double seconds = 0;
  std::optional<std::string> stopped = {}; // why no further step is taken
};

// A JSON object of everything that a refinement's steps depend on.
std::string refine_fingerprint(const RefineOptions& options);

void save_refine_state(
    const std::filesystem::path& file,
    const RefineState& state,
    const std::string& fingerprint,
    const FlatArrays& arrays);

// Fills `arrays` in place. Throws InputError naming the first entry of the
// fingerprints that differs.
RefineState load_refine_state(
    const std::filesystem::path& file,
    const std::string& fingerprint,
    const FlatArrays& arrays);

} // namespace merganser
