#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kFisherBaseParameters[] = {
    kFisherWeight,
    kNormalizeFishers,
    kFisherScale,
    kBaseFisherScale,
    kFisherPower,
    average_buffers(true),
    kDelta};

inline constexpr MethodInfo kFisherBase = {
    .name = "fisher_base",
    .text = "theta_0 + sum w_t H_t tau_t / (H_0 + sum w_t H_t)",
    .source = "Daheim et al., arXiv 2310.12808",
    .formula = MergeFormula::kFisherBase,
    .needs_base = true,
    .needs_fishers = true,
    .needs_base_fisher = true,
    .needs_num_examples = true,
    .parameters = kFisherBaseParameters};

} // namespace merganser::methods
