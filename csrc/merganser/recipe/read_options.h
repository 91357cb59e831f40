#pragma once

#include <filesystem>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/io/yaml_value.h"
#include "merganser/recipe/recipe.h"

// Read the keys that a recipe and a merge of an experiment share.
namespace merganser {

// The directory of a model, by its path relative to `folder` or by its name on
// the Hub; see find_model.
MERGANSER_API std::filesystem::path parse_model_directory(
    const YamlValue& value,
    const std::filesystem::path& folder);

// The value of merge_method.
MERGANSER_API const MethodInfo& parse_method(const YamlValue& name);

// The keys parameters, heads, dtype and out_dtype of a mapping. Uses
// recipe.method.
MERGANSER_API void parse_recipe_options(
    const YamlValue& mapping,
    Recipe& recipe);

// The mapping `parameters`. Accepts parameters of all methods, so that a recipe
// can switch to another method. `scope`: of a model or of the merge.
MERGANSER_API Settings parse_settings(
    const YamlValue& mapping,
    const MethodInfo& method,
    ParameterInfo::Scope scope);

// Throws InputError if a method cannot merge this number of models, the base
// not counted.
MERGANSER_API void check_count(const MethodInfo& method, int models);

// The name in torch and mergekit: "float32". Throws InputError for a type that
// recipes do not support (all but F16, BF16, F32, F64).
MERGANSER_API std::string_view torch_dtype_name(DType dtype);

} // namespace merganser
