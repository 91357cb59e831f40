#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

// No normalize_fishers: rho compares N_t g_t with N_0 F_0 tau_t.
inline constexpr ParameterInfo kMeasuredGradientMatchingParameters[] = {
    kFisherWeight,
    kRho,
    kFisherScale,
    kBaseFisherScale,
    kFisherPower,
    average_buffers(true),
    kDelta};

inline constexpr MethodInfo kMeasuredGradientMatching = {
    .name = "measured_gradient_matching",
    .text = "theta_0 + sum w_t (rho_t H_0 + H_t) tau_t / (H_0 + sum w_t H_t)",
    .source =
        "Daheim et al., arXiv 2310.12808, with the experts' own gradients",
    .formula = MergeFormula::kGradientMatching,
    .needs_base = true,
    .needs_fishers = true,
    .needs_base_fisher = true,
    .needs_num_examples = true,
    .parameters = kMeasuredGradientMatchingParameters};

} // namespace merganser::methods
