#pragma once

#include <string_view>

#include "merganser/base/api.h"
#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

// The keys that a recipe and a merge of an experiment have in common.
namespace merganser {

// The value of merge_method.
MERGANSER_API const MethodInfo& parse_method(const YamlValue& name);

// The keys parameters, heads, dtype and out_dtype of a mapping; recipe.method
// is known by then.
MERGANSER_API void parse_recipe_options(
    const YamlValue& mapping,
    Recipe& recipe);

// A mapping `parameters`: those of any method, so that a recipe can be tried
// with another one. `scope`: where it stands.
MERGANSER_API Settings parse_settings(
    const YamlValue& mapping,
    const MethodInfo& method,
    ParameterInfo::Scope scope);

// Throws InputError where a method cannot merge so many models beside the base.
MERGANSER_API void check_count(const MethodInfo& method, int models);

// As torch and mergekit name it: "float32". The type must be one that recipes
// can ask for (F16, BF16, F32, F64).
MERGANSER_API std::string_view torch_dtype_name(DType dtype);

} // namespace merganser
