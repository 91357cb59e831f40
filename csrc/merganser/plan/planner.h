#pragma once

#include "merganser/base/api.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Opens the files that a recipe names and checks that they fit together. Reads
// headers, config.json, tokenizer files and, of models with Fishers, the first
// bytes of each tensor; without a base also the integer and bool tensors, which
// must agree. Throws InputError that lists all problems at once.
MERGANSER_API MergePlan make_plan(Recipe recipe);

} // namespace merganser
