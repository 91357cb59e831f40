#pragma once

#include <functional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/problems.h"
#include "merganser/plan/name_map.h"

namespace merganser {

enum class TensorKind {
  kFloat, // merged by a formula
  kInteger, // integers and bools: copied
  kUnsupported, // floats of at most 8 bits, complex numbers
};
TensorKind tensor_kind(DType dtype);

// True for the names of tensors that a check leaves out: heads.
using Skipped = std::function<bool(const std::string& name)>;

// The checks below add a sentence per kind of difference, naming files and
// tensors; tensors are found by the names of the reference.

// Checks the types of the model that the others are compared with.
void check_types(
    const Checkpoint& model,
    const Skipped& skipped,
    Problems& problems);

// Checks that two models have the same tensors, in the same shapes and kinds,
// except for constants and copies of tied tensors.
void check_tensors(
    const NamedCheckpoint& model,
    const Checkpoint& reference,
    const Skipped& skipped,
    Problems& problems);

// True for a stored tensor that a merge would drop, other than constants and
// copies of tied tensors.
bool is_extra(
    const NamedCheckpoint& model,
    const TensorInfo& found,
    const Checkpoint& reference);

// Checks that a Fisher has every tensor of its model for which needs_fisher is
// true, and no other. Asks only for tensors that it lacks.
void check_fisher(
    const NamedCheckpoint& fisher,
    const NamedCheckpoint& model,
    const std::function<bool(const std::string& name)>& needs_fisher,
    Problems& problems);

// Checks that Gram matrices (in, in) have the names of weights (out, in) of the
// model.
void check_gram(
    const NamedCheckpoint& gram,
    const NamedCheckpoint& model,
    Problems& problems);

// Checks that integers and bools agree, for merges without a base to copy them
// from. Reads them.
void check_integers(
    const std::vector<NamedCheckpoint>& models,
    const Skipped& skipped,
    Problems& problems);

} // namespace merganser
