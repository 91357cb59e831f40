#pragma once

#include <filesystem>
#include <string>

#include "io/api.h"
#include "io/progress.h"
#include "merge/plan.h"

namespace merganser {

struct MERGANSER_API MergeReport {
  MergeMethod method = MergeMethod::kLinear;
  int64_t tensors_merged = 0;
  int64_t tensors_copied = 0;
  int64_t elements = 0; // merged
  int64_t clamped = 0; // removal: elements whose denominator was clamped
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  double seconds = 0;

  std::string to_text() const; // one or two lines
  std::string to_json() const;
};

// Carries out a plan, tensor by tensor, into a Hugging Face model directory
// that appears under `out` only when it is whole; with heads: per_task the
// tasks' own heads lie in out/heads/<model>.safetensors. threads 0: all cores;
// the same bytes for any number. `progress` counts megabytes read and written.
//
// Throws InputError, before any tensor is written, when `out` exists or a
// Fisher was taken of another model (its metadata name the model's content
// hash); and when a value is not finite or a Fisher is negative, naming tensor
// and index. Throws Error when the disk is too small.
MERGANSER_API MergeReport execute_merge(
    const MergePlan& plan,
    const std::filesystem::path& out,
    int threads = 0,
    const ProgressCallback& progress = {});

} // namespace merganser
