#include "merganser/objective/objective_options.h"

#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/fisher/fisher_options.h"

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
  check_examples(options.limit, options.batch_size);
}

} // namespace merganser
