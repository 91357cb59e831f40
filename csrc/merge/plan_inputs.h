#pragma once

#include <functional>
#include <string>

#include "io/problems.h"
#include "merge/plan.h"

// The parts of a plan that come from its inputs; each gathers what is wrong.
namespace merganser {

// Base, models, adapters and the Fishers that the method uses: headers only.
void open_files(MergePlan& plan, Problems& problems);

// Whether all that is open fits together.
void compare_inputs(const MergePlan& plan, Problems& problems);

// N_0 and N_t: the recipe's, or else those of the metadata.
void read_scales(MergePlan& plan, Problems& problems);

// Fishers and Gram matrices belong to the very weights that they were taken of.
// Their metadata name the weights' content hash, where it is known. `hash_of`:
// that of one of plan.inputs, or its first half, which finds nearly all that is
// wrong without reading the model.
void check_hashes(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of,
    Problems& problems);

} // namespace merganser
