#pragma once

#include <cstdint>
#include <string>

#include "merganser/base/api.h"

namespace merganser {

enum class Schedule { kConstant, kLinear, kCosine };
MERGANSER_API Schedule parse_schedule(const std::string& name);
MERGANSER_API std::string schedule_name(Schedule schedule);

// The factor on the learning rate at step 0 <= step < total, as transformers'
// get_{constant,linear,cosine}_schedule_with_warmup compute it.
MERGANSER_API double schedule_factor(
    Schedule schedule,
    int64_t step,
    int64_t warmup,
    int64_t total);

} // namespace merganser
