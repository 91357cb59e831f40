#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Logarithms of the class probabilities (N, K) in float64 on the CPU, in the
// order of the data. Runs the model in eval mode and restores its mode.
// Progress counts examples and shows the accuracy so far.
MERGANSER_API at::Tensor predict(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress = {});

// Mean over rows of the total variation 1/2 sum_k |p_k - q_k|, in [0, 1]: the
// largest difference in the probability of any set of classes.
MERGANSER_API double mean_total_variation(
    const at::Tensor& p,
    const at::Tensor& q);

} // namespace merganser
