#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/text/batching.h"

namespace merganser {

// The logits (B, K) of a batch, float32 even if the matrix products are
// bfloat16.
MERGANSER_API at::Tensor batch_logits(
    Encoder& model,
    const Batch& batch,
    bool bfloat16);

// Calls use(batch, logits) for batches of a data set, given as positions of
// examples. Throws Interrupted on Ctrl-C.
using UseLogits =
    std::function<void(const Batch& batch, const at::Tensor& logits)>;
MERGANSER_API void for_each_batch(
    Encoder& model,
    const Dataset& data,
    const std::vector<std::vector<int64_t>>& batches,
    int32_t pad_id,
    bool bfloat16,
    const UseLogits& use);

} // namespace merganser
