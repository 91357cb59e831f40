#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kDellaParameters[] = {
    kWeight,
    kDensity,
    kEpsilon,
    normalize(true),
    rescale(true),
    kLambda,
    kSeed};

inline constexpr MethodInfo kDella = {
    .name = "della",
    .text =
        "theta_0 + lambda sum m_t w_t tau_t / sum m_t w_t, m_t = 1 where "
        "w_t tau_t has the sign of sum w_s tau_s, else 0; tau_t with entries "
        "dropped at random, small ones more often",
    .source = "Deep et al., arXiv 2406.11617",
    .formula = MergeFormula::kSignElection,
    .sparsify = Sparsify::kRanked,
    .needs_base = true,
    .parameters = kDellaParameters};

inline constexpr ParameterInfo kDellaLinearParameters[] = {
    kWeight,
    kDensity,
    kEpsilon,
    normalize(false),
    rescale(true),
    kLambda,
    kSeed};

inline constexpr MethodInfo kDellaLinear = {
    .name = "della_linear",
    .text =
        "theta_0 + lambda sum w_t tau_t; tau_t with entries dropped at random, "
        "small ones more often",
    .source = "Deep et al., arXiv 2406.11617",
    .formula = MergeFormula::kTaskSum,
    .sparsify = Sparsify::kRanked,
    .needs_base = true,
    .parameters = kDellaLinearParameters};

} // namespace merganser::methods
