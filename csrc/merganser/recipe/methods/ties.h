#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kTiesParameters[] =
    {kWeight, kDensity, normalize(true), rescale(false), kLambda};

inline constexpr MethodInfo kTies = {
    .name = "ties",
    .text =
        "theta_0 + lambda sum m_t w_t tau_t / sum m_t w_t, m_t = 1 where "
        "w_t tau_t has the sign of sum w_s tau_s, else 0; tau_t without its "
        "smallest magnitudes",
    .source = "Yadav et al., arXiv 2306.01708",
    .formula = MergeFormula::kSignElection,
    .sparsify = Sparsify::kMagnitude,
    .needs_base = true,
    .parameters = kTiesParameters};

} // namespace merganser::methods
