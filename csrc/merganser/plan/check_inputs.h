#pragma once

#include <functional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

// Checks that the inputs of a plan fit together.
namespace merganser {

// Compares models, adapters, Fishers and Gram matrices by their tensors, and
// models by their configurations.
void check_inputs(const MergePlan& plan, Problems& problems);

// Checks that Fishers and Gram matrices were estimated on exactly these
// weights: their metadata contain the content hash of the weights, where it was
// known. `hash_of` returns the hash of one of plan.inputs, or its first half,
// which finds nearly all differences without reading the whole model.
MERGANSER_API void check_hashes(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of,
    Problems& problems);

// Sentences about the Fishers and Gram matrices that check_hashes cannot check:
// the hash is unknown, does not cover the model's adapter, or needs a download.
std::vector<std::string> unchecked_hashes(const MergePlan& plan);

} // namespace merganser
