#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kTaskArithmeticParameters[] = {
    kSubspaceWeight,
    normalize(false),
    kLambda};

inline constexpr MethodInfo kTaskArithmetic = {
    .name = "task_arithmetic",
    .text = "theta_0 + sum w_t tau_t",
    .source = "Ilharco et al., arXiv 2212.04089",
    .formula = MergeFormula::kTaskArithmetic,
    .needs_base = true,
    .parameters = kTaskArithmeticParameters};

} // namespace merganser::methods
