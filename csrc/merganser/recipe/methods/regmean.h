#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kRegMeanParameters[] = {
    kGramWeight,
    normalize(true),
    {.name = "off_diagonal",
     .min = 0,
     .max = 1,
     .fallback = 0.9,
     .meaning = "factor that multiplies the Gram matrices off the diagonal"},
    kRidge};

inline constexpr MethodInfo kRegMean = {
    .name = "regmean",
    .text =
        "W = (sum w_t W_t G_t) (sum w_t G_t)^-1 for linear layers with Gram "
        "matrices, sum w_t theta_t for all other tensors",
    .source = "Jin et al., arXiv 2212.09849",
    .formula = MergeFormula::kLinear,
    .matrix = MatrixRule::kRegMean,
    .needs_num_examples = true,
    .parameters = kRegMeanParameters};

} // namespace merganser::methods
