#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kBreadcrumbsParameters[] =
    {kWeight, kDensity, kGamma, normalize(false), rescale(false), kLambda};

inline constexpr MethodInfo kBreadcrumbs = {
    .name = "breadcrumbs",
    .text =
        "theta_0 + lambda sum w_t tau_t; tau_t without its smallest and its "
        "largest magnitudes",
    .source = "Davari & Belilovsky, arXiv 2312.06795",
    .formula = MergeFormula::kTaskSum,
    .sparsify = Sparsify::kOutliers,
    .needs_base = true,
    .parameters = kBreadcrumbsParameters};

inline constexpr ParameterInfo kBreadcrumbsTiesParameters[] =
    {kWeight, kDensity, kGamma, normalize(false), rescale(false), kLambda};

inline constexpr MethodInfo kBreadcrumbsTies = {
    .name = "breadcrumbs_ties",
    .text =
        "theta_0 + lambda sum m_t w_t tau_t / sum m_t w_t, m_t = 1 where "
        "w_t tau_t has the sign of sum w_s tau_s, else 0; tau_t without its "
        "smallest and its largest magnitudes",
    .source = "Davari & Belilovsky, arXiv 2312.06795",
    .formula = MergeFormula::kSignElection,
    .sparsify = Sparsify::kOutliers,
    .needs_base = true,
    .parameters = kBreadcrumbsTiesParameters};

} // namespace merganser::methods
