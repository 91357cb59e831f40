#include "merganser/search/search_options.h"

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/fisher/fisher_options.h"

namespace merganser {

bool parse_by_loss(const std::string& name) {
  if (name != "accuracy" && name != "loss") {
    throw InputError(fmt::format("expected accuracy or loss, got '{}'", name));
  }
  return name == "loss";
}

void check_options(const SearchOptions& options) {
  if (options.trials < 1) {
    throw InputError(
        fmt::format("expected at least one trial, got {}", options.trials));
  }
  check_examples(options.limit, options.batch_size);
}

} // namespace merganser
