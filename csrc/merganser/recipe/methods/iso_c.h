#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kIsoCParameters[] = {kLambda};

inline constexpr MethodInfo kIsoC = {
    .name = "iso_c",
    .text =
        "W_0 + lambda mean(S) U V^T for linear layers other than heads, with U "
        "S V^T = sum (W_t - W_0); theta_0 + lambda mean tau_t for all other "
        "tensors",
    .source = "Marczak et al., arXiv 2502.04959",
    .formula = MergeFormula::kTaskArithmetic,
    .weights = WeightRule::kMean,
    .matrix = MatrixRule::kIsoC,
    .needs_base = true,
    .parameters = kIsoCParameters};

} // namespace merganser::methods
