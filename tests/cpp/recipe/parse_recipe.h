#pragma once

#include <string>

#include "merganser/recipe/recipe.h"

namespace merganser::test {

inline Recipe parse_recipe(const std::string& yaml) {
  return Recipe::parse(yaml, "/recipes", "r.yaml");
}

} // namespace merganser::test
