#pragma once

#include "merganser/experiment/settings.h"
#include "merganser/io/yaml_value.h"

namespace merganser {

// Parses `removal`, after all other keys of the experiment.
ExperimentRemoval parse_removal(
    const YamlValue& mapping,
    const Experiment& experiment);

} // namespace merganser
