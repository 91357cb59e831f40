#pragma once

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

// The parts of a plan that come from its inputs; each gathers what is wrong.
namespace merganser {

// Base, models, adapters and the Fishers that the method uses: headers only.
void open_inputs(MergePlan& plan, Problems& problems);

// N_0 and N_t: the recipe's, or else those of the metadata.
void read_num_examples(MergePlan& plan, Problems& problems);

} // namespace merganser
