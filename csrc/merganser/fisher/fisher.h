#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/fisher/fisher_options.h"
#include "merganser/fisher/result.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Estimates 1/N sum_i E[(gradient of log p(y | x_i))^2], squares per example,
// with the model in eval mode (its mode is restored). docs/method.md, section
// 3, has the formulas of each estimator. Progress counts examples. The caller
// sets the result's model_hash. Throws InputError for options out of range.
MERGANSER_API FisherResult estimate_fisher(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    const FisherOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
