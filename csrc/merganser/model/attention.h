#pragma once

#include "merganser/model/layers.h"

namespace merganser::layers {

// softmax(q k^T / sqrt(D) + mask) v for each of `heads` heads of D channels.
// query (B, Q, C), key and value (B, L, C), C = heads * D; mask (B, 1, 1, L) of
// 0 and -inf, or undefined. Returns (B, Q, C). Applies dropout to the weights.
at::Tensor attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& mask,
    int64_t heads,
    double dropout_probability,
    DropoutDraws* draws);

} // namespace merganser::layers
