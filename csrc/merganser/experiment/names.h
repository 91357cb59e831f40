#pragma once

#include <string>

#include "merganser/io/yaml_value.h"

namespace merganser {

// Checks a name that the user gave to a data set or a merge: names become file
// names and words of the recipes that are written. Throws InputError at
// `place`.
void check_name(const YamlValue& place, const std::string& name);

} // namespace merganser
