#pragma once

#include "merganser/plan/plan.h"

namespace merganser {

// Notes what the Fishers of a merge leave out, and where they do not fit the
// method. Expects the tensors to be planned.
void note_fishers(MergePlan& plan);

} // namespace merganser
