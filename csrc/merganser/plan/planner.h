#pragma once

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

namespace merganser {

// The rows of a plan whose inputs are open and fit together: every tensor of
// the output, and where it comes from.
void plan_tensors(MergePlan& plan, Problems& problems);

} // namespace merganser
