#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kPassthroughParameters[] = {
    {.name = "scale",
     .scope = ParameterInfo::Scope::kModel,
     .fallback = 1,
     .meaning = "factor that multiplies the tensor"}};

inline constexpr MethodInfo kPassthrough = {
    .name = "passthrough",
    .text = "scale theta_1",
    .source = "mergekit",
    .formula = MergeFormula::kLinear,
    .weights = WeightRule::kScale,
    .max_models = 1,
    .parameters = kPassthroughParameters};

} // namespace merganser::methods
