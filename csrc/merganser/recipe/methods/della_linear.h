#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

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
        "theta_0 + lambda sum w_t tau_t; tau_t at random places, more likely "
        "where it is great",
    .source = "Deep et al., arXiv 2406.11617",
    .formula = MergeFormula::kTaskSum,
    .sparsify = Sparsify::kRanked,
    .needs_base = true,
    .parameters = kDellaLinearParameters};

} // namespace merganser::methods
