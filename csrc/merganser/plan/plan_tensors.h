#pragma once

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Sets plan.tensors: every tensor of the output and its sources. Expects the
// plan's inputs to be open and compatible.
void plan_tensors(MergePlan& plan, Problems& problems);

} // namespace merganser
