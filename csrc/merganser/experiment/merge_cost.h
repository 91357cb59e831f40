#pragma once

#include "merganser/experiment/results.h"
#include "merganser/experiment/stages.h"

namespace merganser {

// The cost of a merge whose stages have run. Files and examples that several of
// its parts share, such as the directions of its subspace, count once.
MergeCost cost_of(Workplace& work, const ExperimentMerge& merge);

} // namespace merganser
