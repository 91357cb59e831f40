#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kDareLinearParameters[] =
    {kWeight, kDensity, normalize(false), rescale(true), kLambda, kSeed};

inline constexpr MethodInfo kDareLinear = {
    .name = "dare_linear",
    .text =
        "theta_0 + lambda sum w_t tau_t; tau_t with entries dropped at random",
    .source = "Yu et al., arXiv 2311.03099",
    .formula = MergeFormula::kTaskSum,
    .sparsify = Sparsify::kRandom,
    .needs_base = true,
    .parameters = kDareLinearParameters};

inline constexpr ParameterInfo kDareTiesParameters[] =
    {kWeight, kDensity, normalize(false), rescale(true), kLambda, kSeed};

inline constexpr MethodInfo kDareTies = {
    .name = "dare_ties",
    .text =
        "theta_0 + lambda sum m_t w_t tau_t / sum m_t w_t, m_t = 1 where "
        "w_t tau_t has the sign of sum w_s tau_s, else 0; tau_t with entries "
        "dropped at random",
    .source = "Yu et al., arXiv 2311.03099",
    .formula = MergeFormula::kSignElection,
    .sparsify = Sparsify::kRandom,
    .needs_base = true,
    .parameters = kDareTiesParameters};

} // namespace merganser::methods
