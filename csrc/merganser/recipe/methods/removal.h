#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kRemovalParameters[] = {
    kFisherWeight,
    kNormalizeFishers,
    kFisherScale,
    kBaseFisherScale,
    kFisherPower,
    average_buffers(false),
    kDelta,
    {.name = "clamp",
     .min = 0,
     .max = 1,
     .above_min = true,
     .fallback = 0.05,
     .meaning =
         "where the denominator is below this fraction of H_0 + sum w_t H_t, "
         "the weight of tau_t is w_t"}};

inline constexpr MethodInfo kRemoval = {
    .name = "removal",
    .text = "theta_0 - sum w_t (H_0 + H_t) tau_t / (H_0 - sum w_t H_t)",
    .source = "Daheim et al., arXiv 2310.12808",
    .formula = MergeFormula::kRemoval,
    .needs_base = true,
    .needs_fishers = true,
    .needs_base_fisher = true,
    .needs_num_examples = true,
    .parameters = kRemovalParameters};

} // namespace merganser::methods
