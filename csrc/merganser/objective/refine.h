#pragma once

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/objective/refine_options.h"
#include "merganser/objective/refine_result.h"

namespace merganser {

// Takes steps from options.model towards the minimum of the joint objective on
// few examples, and writes the step with the lowest objective on the held-out
// examples, the start included, as a model directory with refine.json.
//
// A killed run continues with options.resume from OUT.partial, whose state is
// written at every evaluation. After an interruption (Interrupted is thrown)
// OUT has the best step so far; resuming replaces it. Progress counts steps.
// Throws InputError for invalid options, models or data, and for a start at
// which the objective or its gradient is not finite.
MERGANSER_API RefineResult
refine(const RefineOptions& options, const ProgressCallback& progress = {});

} // namespace merganser
