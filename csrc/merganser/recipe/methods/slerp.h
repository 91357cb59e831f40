#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kSlerpParameters[] = {
    {.name = "t",
     .min = 0,
     .max = 1,
     .meaning = "interpolation factor; 0: the base, 1: the model"}};

inline constexpr MethodInfo kSlerp = {
    .name = "slerp",
    .text =
        "(sin((1 - t) w) theta_0 + sin(t w) theta_1) / sin w, w the angle "
        "between the tensors",
    .source = "Shoemake, SIGGRAPH 1985",
    .formula = MergeFormula::kLinear,
    .weights = WeightRule::kSlerp,
    .needs_base = true,
    .max_models = 1,
    .parameters = kSlerpParameters};

} // namespace merganser::methods
