#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/plan/plan.h"
#include "merganser/plan/plan_text.h"

namespace merganser {

inline constexpr uint64_t kDefaultMemory = uint64_t{256} << 20; // bytes

// Buffers of a merge with a number of threads (0: all cores).
MERGANSER_API BufferMemory buffer_memory(const MergePlan& plan, int threads);

// Buffers with at most `threads` threads (0: all cores), as many as fit into
// `limit` bytes. Throws InputError if those of one thread do not fit.
MERGANSER_API BufferMemory
fit_threads(const MergePlan& plan, int threads, uint64_t limit);

} // namespace merganser
