#pragma once

#include <string>

#include "merganser/base/api.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// The YAML of a recipe without slices, with its paths unchanged and the
// parameters that its method uses.
MERGANSER_API std::string recipe_text(const Recipe& recipe);

} // namespace merganser
