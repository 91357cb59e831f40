#pragma once

#include "io/api.h"
#include "model/encoder.h"
#include "text/batching.h"

namespace merganser {

// The logits (B, K) of a batch, float32 also where the matrix products are
// bfloat16.
MERGANSER_API at::Tensor batch_logits(
    Encoder& model,
    const Batch& batch,
    bool bfloat16);

} // namespace merganser
