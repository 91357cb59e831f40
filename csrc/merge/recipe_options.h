#pragma once

#include <string_view>

#include "io/api.h"
#include "io/yaml_value.h"
#include "merge/recipe.h"

// The keys that a recipe and a merge of an experiment have in common.
namespace merganser {

// The value of merge_method: recipe.method and its defaults.
MERGANSER_API void parse_method(const YamlValue& name, Recipe& recipe);

// The keys parameters, heads, dtype and out_dtype of a mapping; the method is
// known by then.
MERGANSER_API void parse_recipe_options(
    const YamlValue& mapping,
    Recipe& recipe);

// alpha_t, in the range that the method takes.
MERGANSER_API double parse_weight(
    const YamlValue& value,
    const MethodInfo& method);

// As torch and mergekit name it: "float32". The type must be one that recipes
// can ask for (F16, BF16, F32, F64).
MERGANSER_API std::string_view torch_dtype_name(DType dtype);

} // namespace merganser
