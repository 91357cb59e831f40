#include "merganser/train/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "merganser/base/error.h"

namespace merganser {

Schedule parse_schedule(const std::string& name) {
  if (name == "constant") {
    return Schedule::kConstant;
  }
  if (name == "linear") {
    return Schedule::kLinear;
  }
  if (name == "cosine") {
    return Schedule::kCosine;
  }
  throw InputError(fmt::format(
      "unknown scheduler \"{}\"; expected constant, linear or cosine", name));
}

std::string schedule_name(Schedule schedule) {
  switch (schedule) {
    case Schedule::kConstant:
      return "constant";
    case Schedule::kLinear:
      return "linear";
    default:
      return "cosine";
  }
}

double schedule_factor(
    Schedule schedule,
    int64_t step,
    int64_t warmup,
    int64_t total) {
  if (step < warmup) {
    return static_cast<double>(step) / static_cast<double>(warmup);
  }
  const double decay_steps =
      static_cast<double>(std::max<int64_t>(1, total - warmup));
  const double done = static_cast<double>(step - warmup) / decay_steps;
  switch (schedule) {
    case Schedule::kConstant:
      return 1;
    case Schedule::kLinear:
      return std::max(0.0, 1 - done);
    default:
      return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * done)));
  }
}

} // namespace merganser
