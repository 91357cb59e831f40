#pragma once

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

} // namespace merganser
