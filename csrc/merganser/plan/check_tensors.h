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
  kUnsupported, // floats of at most 8 bits, complex numbers
};
TensorKind tensor_kind(DType dtype);

// True for tensors of classification heads, to which a recipe's `heads`
// applies.
MERGANSER_API bool is_head_tensor(std::string_view name);

// The checks below add a sentence per kind of difference, naming files and
// tensors; with skip_heads, tensors of heads may differ.

// Checks the types of the model that the others are compared with.
void check_types(const Checkpoint& model, bool skip_heads, Problems& problems);

// Checks that two models have the same tensors, in the same shapes and kinds.
void check_tensors(
    const Checkpoint& model,
    const Checkpoint& reference,
    bool skip_heads,
    Problems& problems);

// Checks that a Fisher has every tensor of its model that is merged, and no
// other.
void check_fisher(
    const Checkpoint& fisher,
    const Checkpoint& model,
    bool skip_heads,
    Problems& problems);

// Checks that Gram matrices (in, in) have the names of weights (out, in) of the
// model.
void check_gram(
    const Checkpoint& gram,
    const Checkpoint& model,
    Problems& problems);

// Checks that integers and bools agree, for merges without a base to copy them
// from. Reads them.
void check_integers(
    const std::vector<const Checkpoint*>& models,
    bool skip_heads,
    Problems& problems);

} // namespace merganser
