#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr MethodInfo kModelStock = {
    .name = "model_stock",
    .text =
        "theta_0 + r mean tau_t, r = T c / (1 + (T - 1) c), c the mean cosine "
        "between the task vectors of the tensor",
    .source = "Jang et al., arXiv 2403.19522",
    .formula = MergeFormula::kTaskArithmetic,
    .weights = WeightRule::kModelStock,
    .needs_base = true,
    .min_models = 2,
};

} // namespace merganser::methods
