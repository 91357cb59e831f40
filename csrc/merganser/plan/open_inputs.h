#pragma once

#include "merganser/base/problems.h"
#include "merganser/plan/plan.h"

// Parts of a plan that come from its inputs; problems are collected.
namespace merganser {

// Opens base, models, adapters, and the Fishers and Gram matrices that the
// method uses; reads headers only.
void open_inputs(MergePlan& plan, Problems& problems);

// Sets N_0 and N_t, from the recipe or else from the metadata.
void read_num_examples(MergePlan& plan, Problems& problems);

} // namespace merganser
