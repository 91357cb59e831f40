#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/engine/buffer_memory.h"
#include "merganser/engine/report.h"
#include "merganser/plan/planner.h"

namespace merganser {

struct MergeOptions {
  int threads = 0; // 0: all cores; fewer where `memory` does not suffice
  uint64_t memory = kDefaultMemory; // limit for buffers in bytes
  bool resume = false; // continue an interrupted merge, if there is one
  // Maximum size of an output file; absent: as in the base (or first model).
  std::optional<uint64_t> shard_bytes = std::nullopt;
  // Merge NaN and infinities like other values and count them.
  bool allow_nonfinite = false;
};

// Executes a plan and writes a Hugging Face model directory, which appears as
// `out` only when it is complete (for a recipe with a sweep: `out` contains one
// such directory for each value). With heads: per_task, the tasks' own heads
// are in out/heads/<model>.safetensors; out/merganser.json records the
// provenance (provenance/provenance.h). The bytes do not depend on the number
// of threads or on the memory. `progress` counts megabytes read and written.
//
// An interrupted or killed run leaves OUT.merging (engine/staging.h), from
// which `resume` continues to the same bytes; after any other Error nothing is
// left.
//
// Throws InputError before it writes if `out` exists, `memory` is too little
// for one thread, or a Fisher belongs to a different model (its metadata
// contain the model's content hash, of which the second half is checked when
// all data have been read, before `out` appears); and for a value that is not
// finite or a negative Fisher, naming tensor and index. Throws Error if the
// disk is too small.
MERGANSER_API MergeReport execute_merge(
    const MergePlan& plan,
    const std::filesystem::path& out,
    const MergeOptions& options = {},
    const ProgressCallback& progress = {});

} // namespace merganser
