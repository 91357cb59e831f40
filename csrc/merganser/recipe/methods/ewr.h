#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kEwrParameters[] = {
    // No default: good values are far below 1 and differ between models.
    {.name = "weight",
     .scope = ParameterInfo::Scope::kModel,
     .min = 0,
     .meaning = kFisherWeight.meaning},
    average_buffers(false),
    {.name = "floor",
     .min = 0,
     .above_min = true,
     .fallback = 1e-6,
     .meaning = "lower bound of every Fisher"}};

inline constexpr MethodInfo kEwr = {
    .name = "ewr",
    .text = "(F_0 theta_0 - sum w_t F_t tau_t) / (F_0 + sum w_t F_t)",
    .source = "Daheim et al., arXiv 2303.17574",
    .formula = MergeFormula::kEwr,
    .needs_base = true,
    .needs_fishers = true,
    .needs_base_fisher = true,
    .shrinks_base = true,
    .parameters = kEwrParameters};

} // namespace merganser::methods
