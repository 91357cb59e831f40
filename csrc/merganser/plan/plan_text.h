#pragma once

#include <cstdint>
#include <string>

#include "merganser/base/api.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Threads of a merge and the size of their buffers; engine/buffer_memory.h
// computes it.
struct BufferMemory {
  int threads = 0;
  uint64_t bytes = 0;
};

// Tables for people.
MERGANSER_API std::string plan_text(
    const MergePlan& plan,
    const BufferMemory& memory);

MERGANSER_API std::string plan_json(
    const MergePlan& plan,
    const BufferMemory& memory);

} // namespace merganser
