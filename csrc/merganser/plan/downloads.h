#pragma once

#include <string>
#include <vector>

#include "merganser/io/header_only.h"
#include "merganser/plan/plan.h"

// Models of a plan that are not downloaded, so that it has their headers only.
namespace merganser {

// Each once, in the order of MergePlan::inputs.
std::vector<HeaderOnly> downloads_of(const MergePlan& plan);

// Their names, for people.
std::string list_names(const std::vector<HeaderOnly>& downloads);

// Notes them, and what is not checked without their values.
void note_downloads(MergePlan& plan);

} // namespace merganser
