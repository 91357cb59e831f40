#pragma once

#include <vector>

#include "merge/plan.h"

namespace merganser {

// The mean of every Fisher over all elements that are merged with it, by its
// place in plan.inputs (0 for what is no Fisher): `normalize_fishers` divides
// by it. Reads the Fishers; the same for any number of threads. Throws
// InputError for one whose mean is not greater than 0 and finite.
std::vector<double> fisher_means(const MergePlan& plan, int threads);

// Whether a parameter of the recipe asks for them.
bool needs_fisher_means(const MergePlan& plan);

} // namespace merganser
