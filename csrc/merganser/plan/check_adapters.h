#pragma once

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Checks that a model has the tensors that its adapter updates or replaces, in
// the same shapes, and that nothing of the merge lacks those that the adapter
// adds to the model.
void check_adapter(
    const MergePlan& plan,
    const PlanSlice& slice,
    const PlanModel& model,
    Problems& problems);

} // namespace merganser
