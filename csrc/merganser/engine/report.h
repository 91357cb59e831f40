#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// Result of a merge.
struct MERGANSER_API MergeReport {
  std::string_view method;
  int64_t tensors_merged = 0;
  int64_t tensors_copied = 0;
  int64_t tensors_resumed = 0; // of both, finished by an earlier run
  int64_t tensors_without_fisher = 0; // of the merged ones; see plan_average
  int64_t elements = 0; // merged
  // removal: denominators below the clamp; ewr: Fisher values below the floor
  int64_t clamped = 0;
  int64_t clampable = 0; // all denominators, all Fisher values; otherwise 0
  bool has_denominators = false; // removal
  double largest_weight = 0; // removal
  int64_t nonfinite = 0; // elements of the result
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  int threads = 0; // 0: the merge was already complete
  double seconds = 0;
  std::vector<std::string> notes; // of the plan

  std::string to_text() const; // a few lines
  std::string to_json() const;
};

} // namespace merganser
