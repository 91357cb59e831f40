#include "merganser/plan/measured_rho.h"

#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/io/fisher_file.h"

namespace merganser {

Estimate measured_rho(
    const TaskVectorStatistics& statistics,
    double num_examples,
    double base_num_examples) {
  const auto& [slope, curvature] = statistics.total;
  if (curvature.value == 0 && slope.value == 0) {
    return {1, 0};
  }
  const double scale = num_examples / (base_num_examples * curvature.value);
  const double rho = -scale * slope.value;
  return {
      rho,
      std::hypot(
          scale * slope.standard_error,
          rho * curvature.standard_error / curvature.value)};
}

std::optional<std::string> unstable_rho(const Estimate& rho) {
  constexpr double kWidth = 1; // from plain fine-tuning to the proximal term
  const auto& [value, error] = rho;
  const bool is_near = value >= -kWidth && value <= 2 * kWidth;
  // replace_auto refuses values that are not finite.
  if ((is_near && error <= kWidth) || !std::isfinite(value)) {
    return std::nullopt;
  }
  return fmt::format(
      "rho is {:.3g} ± {:.2g}, where 0 is plain fine-tuning and 1 training "
      "with "
      "the proximal term",
      value,
      error);
}

bool takes_measured_rho(const Settings& model, const Settings& merge) {
  const Setting* rho = find_setting("rho", {&model, &merge});
  return rho == nullptr || rho->has_auto();
}

void read_rhos(MergePlan& plan, Problems& problems) {
  if (plan.recipe.method->find_parameter("rho") == nullptr) {
    return;
  }
  const auto read = [&](PlanModel& model) {
    const Checkpoint& file = *plan.inputs[*model.fisher];
    const auto metadata = FisherMetadata::parse(file.metadata(), file.path());
    if (metadata && metadata->task_vector) {
      model.rho = measured_rho(
          *metadata->task_vector, model.num_examples, plan.base_num_examples);
      const auto reason = unstable_rho(*model.rho);
      if (reason &&
          takes_measured_rho(model.recipe.parameters, plan.recipe.parameters)) {
        plan.notes.push_back(fmt::format(
            "{}: {}; estimate it with a larger --limit, or set rho",
            file.path().string(),
            *reason));
      }
    }
  };
  for (PlanSlice& slice : plan.slices) {
    for (PlanModel& model : slice.models) {
      problems.collect([&] { read(model); });
    }
  }
}

void replace_auto(
    std::vector<double>& rho,
    const std::vector<std::optional<Estimate>>& measured,
    const std::function<std::filesystem::path(size_t t)>& fisher) {
  for (size_t t = 0; t < rho.size(); ++t) {
    if (!std::isnan(rho[t])) {
      continue;
    }
    if (!measured[t]) {
      throw InputError(fmt::format(
          "{}: rho: auto expects a Fisher with the gradient along the task "
          "vector, got one without; estimate it again with --base and "
          "--base-data, or set rho",
          fisher(t).string()));
    }
    if (!std::isfinite(measured[t]->value)) {
      throw InputError(fmt::format(
          "{}: rho: auto expects curvature of the base's Fisher along the task "
          "vector, got none; set rho",
          fisher(t).string()));
    }
    rho[t] = measured[t]->value;
  }
}

} // namespace merganser
