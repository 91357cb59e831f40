#include "merganser/objective/objective_options.h"

#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"

namespace merganser {

void check_options(const ObjectiveOptions& options) {
  if (options.tasks.empty()) {
    throw InputError("expected at least one expert with its data");
  }
  for (const ObjectiveTask& task : options.tasks) {
    if (!(std::isfinite(task.weight) && task.weight > 0)) {
      throw InputError(fmt::format(
          "the weight of {} must be a positive number, got {}",
          task.expert.string(),
          task.weight));
    }
  }
  if (options.limit < 1 && options.limit != -1) {
    throw InputError(fmt::format(
        "limit must be at least 1, or -1 for all examples, got {}",
        options.limit));
  }
  if (options.batch_size < 1) {
    throw InputError(fmt::format(
        "batch_size must be at least 1, got {}", options.batch_size));
  }
}

} // namespace merganser
