#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kGradientMatchingParameters[] = {
    kFisherWeight,
    kNormalizeFishers,
    kFisherScale,
    kBaseFisherScale,
    kFisherPower,
    average_buffers(true),
    kDelta};

inline constexpr MethodInfo kGradientMatching = {
    .name = "gradient_matching",
    .text = "theta_0 + sum w_t (H_0 + H_t) tau_t / (H_0 + sum w_t H_t)",
    .source = "Daheim et al., arXiv 2310.12808",
    .formula = MergeFormula::kGradientMatching,
    .needs_base = true,
    .needs_fishers = true,
    .needs_base_fisher = true,
    .needs_num_examples = true,
    .parameters = kGradientMatchingParameters};

} // namespace merganser::methods
