#pragma once

#include "io/problems.h"
#include "merge/plan.h"

namespace merganser {

// The rows of a plan whose inputs are open and fit together: every tensor of
// the output, and where it comes from.
void plan_tensors(MergePlan& plan, Problems& problems);

// The number of layers in the output of a recipe with slices.
int count_layers(const Recipe& recipe);

} // namespace merganser
