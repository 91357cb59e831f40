#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kSubspaceGradientMatchingParameters[] = {
    kFisherWeight,
    {.name = "shrink",
     .may_be_auto = true,
     .min = 0,
     .max = 1,
     .fallback = kAuto,
     .meaning =
         "fraction by which the off-diagonals of the subspace's curvature are "
         "reduced; auto: chosen by cross-validation on its examples, 0 for "
         "diagonal Fishers"}};

inline constexpr MethodInfo kSubspaceGradientMatching = {
    .name = "subspace_gradient_matching",
    .text =
        "theta_0 + sum v_tg tau_tg, with (H_0 + sum w_t H_t) v = "
        "sum w_t (H_t e_t - g_t) in the span of the tau_tg",
    .source = "Daheim et al., arXiv 2310.12808, in a subspace",
    .formula = MergeFormula::kTaskArithmetic,
    .weights = WeightRule::kSubspace,
    .needs_base = true,
    .needs_subspace = true,
    .parameters = kSubspaceGradientMatchingParameters};

} // namespace merganser::methods
