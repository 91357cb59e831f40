#pragma once

#include <optional>
#include <set>
#include <string>

#include "merganser/base/api.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Notes what the Fishers of a merge leave out, and where they do not fit the
// method. Expects the tensors to be planned.
void note_fishers(MergePlan& plan);

// A sentence if these estimators have different expectations, so that their
// Fishers are on different scales; `method` takes them unnormalized.
MERGANSER_API std::optional<std::string> different_scales(
    const std::set<std::string>& estimators,
    const MethodInfo& method);

} // namespace merganser
