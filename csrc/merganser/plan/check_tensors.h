#pragma once

#include <string_view>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/problems.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

enum class TensorKind {
  kFloat, // merged by a formula
  kInteger, // integers and bools: copied
  kUnsupported, // 8-bit floats and less, complex numbers
};
TensorKind tensor_kind(DType dtype);

// Tensors of classification heads, which a recipe's `heads` is about.
MERGANSER_API bool is_head_tensor(std::string_view name);

// Each adds a sentence per kind of difference, naming files and tensors; with
// skip_heads, tensors of heads may differ.

// The types of the model that the others are compared with.
void check_types(const Checkpoint& model, bool skip_heads, Problems& problems);

// Missing, extra, of another shape or kind.
void compare_tensors(
    const Checkpoint& model,
    const Checkpoint& reference,
    bool skip_heads,
    Problems& problems);

// A Fisher has every tensor of its model that is merged, and no other.
void compare_fisher(
    const Checkpoint& fisher,
    const Checkpoint& model,
    bool skip_heads,
    Problems& problems);

// Gram matrices (in, in) under the names of weights (out, in) that the model
// has.
void compare_gram(
    const Checkpoint& gram,
    const Checkpoint& model,
    Problems& problems);

// Integers and bools, which must agree where no base settles them. Reads them.
void compare_integers(
    const std::vector<const Checkpoint*>& models,
    bool skip_heads,
    Problems& problems);

} // namespace merganser
