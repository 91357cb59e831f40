#pragma once

#include "merganser/plan/name_map.h"

// Comparisons of stored tensors, part by part. Values of models that are not
// downloaded count as equal, so that names decide which tensors are tied; a
// merge compares them.
namespace merganser {

// True for one type, shape and contents.
bool same_bytes(const StoredTensor& x, const StoredTensor& y);

// True for one shape and equal values, also of different types.
bool same_values(const StoredTensor& x, const StoredTensor& y);

// True if all elements are equal, as in many new biases and norms.
bool is_uniform(const StoredTensor& x);

// True for one type and shape.
bool is_like(const TensorInfo& a, const TensorInfo& b);

// True if a tensor that the reference lacks holds the same as one that it has:
// a tie that is stored twice.
bool is_copy(
    const NamedCheckpoint& model,
    const TensorInfo& tensor,
    const Checkpoint& reference);

} // namespace merganser
