#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kLinearParameters[] = {kWeight, normalize(true)};

inline constexpr MethodInfo kLinear = {
    .name = "linear",
    .text = "sum w_t theta_t",
    .source = "Wortsman et al., arXiv 2203.05482",
    .formula = MergeFormula::kLinear,
    .parameters = kLinearParameters};

} // namespace merganser::methods
