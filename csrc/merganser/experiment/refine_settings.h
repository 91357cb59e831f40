#pragma once

#include <set>
#include <string>
#include <vector>

#include "merganser/experiment/settings.h"
#include "merganser/io/yaml_value.h"

namespace merganser {

// Parses `refine`, after base, experts, targets and merges.
std::vector<ExperimentRefinement> parse_refinements(
    const YamlValue& list,
    const Experiment& experiment);

} // namespace merganser
