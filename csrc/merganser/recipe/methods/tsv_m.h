#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kTsvMParameters[] = {kLambda};

inline constexpr MethodInfo kTsvM = {
    .name = "tsv_m",
    .text =
        "W_0 + lambda U S V^T for linear layers other than heads, U and V the "
        "closest matrices with orthonormal columns to the concatenated first "
        "1/T of the left and right singular vectors of every W_t - W_0, S the "
        "singular values; theta_0 + lambda mean tau_t for all other tensors",
    .source = "Gargiulo et al., arXiv 2412.00081",
    .formula = MergeFormula::kTaskArithmetic,
    .weights = WeightRule::kMean,
    .matrix = MatrixRule::kTsvM,
    .needs_base = true,
    .parameters = kTsvMParameters};

} // namespace merganser::methods
