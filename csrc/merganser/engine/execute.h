#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/plan/plan.h"

namespace merganser {

struct MergeOptions {
  int threads = 0; // 0: all cores; fewer where `memory` does not suffice
  uint64_t memory = kDefaultMemory; // bytes of buffers
  // Go on from what a killed run left, where there is something.
  bool resume = false;
  // Of one file; absent: as in the base (or first model).
  std::optional<uint64_t> shard_bytes = std::nullopt;
  // Merge NaN and infinities like other values, and count them.
  bool allow_nonfinite = false;
};

struct MERGANSER_API MergeReport {
  std::string_view method;
  int64_t tensors_merged = 0;
  int64_t tensors_copied = 0;
  int64_t tensors_resumed = 0; // of both, done by an earlier run
  int64_t elements = 0; // merged
  bool counts_clamped = false; // removal
  int64_t clamped = 0; // removal: elements whose denominator was clamped
  int64_t nonfinite = 0; // elements of the result
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  int threads = 0; // at work; 0: nothing was left to do
  double seconds = 0;

  std::string to_text() const; // one or two lines
  std::string to_json() const;
};

// Carries out a plan into a Hugging Face model directory that appears under
// `out` only when it is whole (of a recipe with a sweep: one such directory in
// it for each value); with heads: per_task the tasks' own heads lie in
// out/heads/<model>.safetensors, and out/merganser.json says where it comes
// from (merge/provenance.h). Every input byte is read once. The same bytes for
// any number of threads and any memory. `progress` counts megabytes read and
// written.
//
// A killed or interrupted run leaves OUT.merging (merge/staging.h), from which
// `resume` goes on to the same bytes; any other Error leaves nothing.
//
// Throws InputError, before any tensor is written, when `out` exists, `memory`
// is too little for one thread, or a Fisher was taken of another model (its
// metadata name the model's content hash; of that the second half is checked
// when all has been read, before `out` appears); and when a value is not finite
// or a Fisher is negative, naming tensor and index. Throws Error when the disk
// is too small.
MERGANSER_API MergeReport execute_merge(
    const MergePlan& plan,
    const std::filesystem::path& out,
    const MergeOptions& options = {},
    const ProgressCallback& progress = {});

} // namespace merganser
