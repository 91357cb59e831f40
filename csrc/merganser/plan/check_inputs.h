#pragma once

#include <functional>
#include <string>

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

// Whether what a plan has opened fits together.
namespace merganser {

// Models, adapters, Fishers and Gram matrices, by their tensors and folders.
void check_inputs(const MergePlan& plan, Problems& problems);

// Fishers and Gram matrices belong to the very weights that they were taken of.
// Their metadata name the weights' content hash, where it is known. `hash_of`:
// that of one of plan.inputs, or its first half, which finds nearly all that is
// wrong without reading the model.
void check_hashes(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of,
    Problems& problems);

} // namespace merganser
