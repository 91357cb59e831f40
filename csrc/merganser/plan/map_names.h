#pragma once

#include "merganser/plan/plan.h"

namespace merganser {

// Sets the plan's names of tensors, heads and tied tensors. Expects its inputs
// to be open. Compares tensors where names of tied ones are missing.
void map_names(MergePlan& plan);

} // namespace merganser
