#pragma once

#include <filesystem>
#include <string>

#include "io/api.h"
#include "io/progress.h"
#include "merge/plan.h"

namespace merganser {

struct MergeReport {
  int64_t tensors_merged = 0;
  int64_t tensors_copied = 0;
  int64_t elements = 0;
  int64_t clamped = 0; // removal: elements whose denominator was clamped
  double seconds = 0;

  std::string to_json() const;
};

// Carries out a plan, tensor by tensor, into a Hugging Face model directory
// that appears under `out` only when it is whole. The same bytes for any number
// of threads.
MERGANSER_API MergeReport execute_merge(
    const MergePlan& plan,
    const std::filesystem::path& out,
    int threads,
    const ProgressCallback& progress = {});

} // namespace merganser
