#pragma once

namespace merganser::ops {

// Names of all ops that take tensors; each has a schema in library.cpp.
inline constexpr const char* kOpNames[] = {
    "square_accumulate_",
    "adam_fisher_step_",
    "merge",
    "linear_square_accumulate_",
    "bias_square_accumulate_",
    "embedding_square_accumulate_",
    "layer_norm_square_accumulate_",
    "sample_labels",
    "dropout",
};

} // namespace merganser::ops
