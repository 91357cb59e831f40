#pragma once

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/search/search_options.h"
#include "merganser/search/search_result.h"

namespace merganser {

// Tries values of a recipe's parameters on validation data: merges each recipe
// in memory, evaluates it, and keeps a journal and the best recipe in
// OUT/trials.jsonl and OUT/best.yaml, which `merganser merge` takes. A run with
// the same options continues where an earlier one ended, with as many trials as
// are left of `trials`. A recipe whose values the method refuses is recorded
// and counts as a trial. Progress counts trials.
//
// Throws InputError, before it writes, for a recipe with slices or several
// outputs, an invalid search space, data that do not fit the model, and an
// `out` that contains anything but this search.
MERGANSER_API SearchResult
search(const SearchOptions& options, const ProgressCallback& progress = {});

} // namespace merganser
