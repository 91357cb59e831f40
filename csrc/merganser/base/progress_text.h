#pragma once

#include <cstdint>
#include <string>

#include "merganser/base/api.h"

namespace merganser {

// One state of a progress bar.
struct ProgressState {
  std::string label;
  std::string unit; // "B": bytes
  std::string text; // status of the work; may be empty
  int64_t done = 0;
  int64_t total = 0; // 0: unknown
  int64_t first = 0; // `done` at the start
  double seconds = 0; // since the start
};

// "merge   43% [====>     ] 39.1/90.9 MB, 512 MB/s, 0:02 left, layer.3", cut to
// `columns`; without the bar when columns is 0 (a log).
MERGANSER_API std::string progress_text(
    const ProgressState& state,
    int columns);

} // namespace merganser
