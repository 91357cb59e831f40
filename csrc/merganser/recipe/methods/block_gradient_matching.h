#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kBlockGradientMatchingParameters[] = {
    kFisherWeight,
    kNormalizeFishers,
    kFisherScale,
    kBaseFisherScale,
    kFisherPower,
    average_buffers(true),
    kDelta,
    kRidge};

inline constexpr MethodInfo kBlockGradientMatching = {
    .name = "block_gradient_matching",
    .text =
        "W_0 + (sum w_t (W_t - W_0) (G_0 + G_t)) (G_0 + sum w_t G_t)^-1 for "
        "linear layers with Gram matrices, gradient_matching for all other "
        "tensors",
    .source = "Daheim et al., arXiv 2310.12808, with Gram matrices",
    .formula = MergeFormula::kGradientMatching,
    .matrix = MatrixRule::kGradientMatching,
    .needs_base = true,
    .needs_fishers = true,
    .needs_base_fisher = true,
    .needs_num_examples = true,
    .parameters = kBlockGradientMatchingParameters};

} // namespace merganser::methods
