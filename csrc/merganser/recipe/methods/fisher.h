#pragma once

#include "merganser/recipe/method.h"
#include "merganser/recipe/methods/parameters.h"

namespace merganser::methods {

inline constexpr ParameterInfo kFisherParameters[] = {
    kFisherWeight,
    kNormalizeFishers,
    kFisherScale,
    kFisherPower};

inline constexpr MethodInfo kFisher = {
    .name = "fisher",
    .text = "sum w_t H_t theta_t / sum w_t H_t",
    .source = "Matena & Raffel, arXiv 2111.09832",
    .formula = MergeFormula::kFisher,
    .needs_fishers = true,
    .needs_num_examples = true,
    .parameters = kFisherParameters};

} // namespace merganser::methods
