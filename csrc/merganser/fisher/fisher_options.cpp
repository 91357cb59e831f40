#include "merganser/fisher/fisher_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "merganser/base/error.h"

namespace merganser {
namespace {

constexpr std::array<std::pair<Estimator, const char*>, 4> kNames = {{
    {Estimator::kExact, "exact"},
    {Estimator::kMc, "mc"},
    {Estimator::kEmpirical, "empirical"},
    {Estimator::kMcBatch, "mc_batch"},
}};

constexpr int64_t kMaxSamples = 1'000'000;

bool samples_labels(Estimator estimator) {
  return estimator == Estimator::kMc || estimator == Estimator::kMcBatch;
}

void require(bool condition, const char* what, int64_t value) {
  if (!condition) {
    throw InputError(fmt::format("{}, got {}", what, value));
  }
}

} // namespace

Estimator parse_estimator(const std::string& name) {
  for (const auto& [estimator, its_name] : kNames) {
    if (name == its_name) {
      return estimator;
    }
  }
  throw InputError(fmt::format(
      "unknown estimator '{}'; available: {}", name, estimator_names()));
}

std::string estimator_name(Estimator estimator) {
  for (const auto& [value, name] : kNames) {
    if (value == estimator) {
      return name;
    }
  }
  throw std::logic_error("an estimator without a name");
}

std::string estimator_names() {
  std::vector<std::string_view> names;
  for (const auto& row : kNames) {
    names.push_back(row.second);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

void check_examples(int64_t limit, int64_t batch_size) {
  require(batch_size >= 1, "batch_size must be at least 1", batch_size);
  require(
      limit >= 1 || limit == -1,
      "limit must be at least 1, or -1 for all examples",
      limit);
}

void check_options(const FisherOptions& options) {
  check_examples(options.limit, options.batch_size);
  require(
      options.samples >= 1 && options.samples <= kMaxSamples,
      "samples must be between 1 and 1000000",
      options.samples);
  require(
      options.samples == 1 || samples_labels(options.estimator),
      "samples must be 1 for an estimator that samples no labels",
      options.samples);
}

} // namespace merganser
