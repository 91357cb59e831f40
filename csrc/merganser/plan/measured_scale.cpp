#include "merganser/plan/measured_scale.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "merganser/base/error.h"
#include "merganser/io/fisher_file.h"

namespace merganser {
namespace {

std::optional<Estimate> scale_of(
    const MergePlan& plan,
    const std::optional<size_t>& input) {
  if (!input) {
    return std::nullopt;
  }
  const Checkpoint& file = *plan.inputs[*input];
  const auto metadata = FisherMetadata::parse(file.metadata(), file.path());
  return metadata && metadata->scale ? std::optional(metadata->scale->scale)
                                     : std::nullopt;
}

} // namespace

void read_fisher_scales(MergePlan& plan, Problems& problems) {
  if (plan.recipe.method->find_parameter("fisher_scale") == nullptr) {
    return;
  }
  problems.collect(
      [&] { plan.base_fisher_scale = scale_of(plan, plan.base_fisher); });
  for (PlanSlice& slice : plan.slices) {
    for (PlanModel& model : slice.models) {
      problems.collect(
          [&] { model.fisher_scale = scale_of(plan, model.fisher); });
    }
  }
}

void replace_auto_scales(
    TensorParameters& parameters,
    const MeasuredScales& measured,
    const std::function<std::filesystem::path(std::optional<size_t> t)>&
        fisher) {
  const auto replace = [&](double& scale,
                           const std::optional<Estimate>& found,
                           std::optional<size_t> t) {
    if (!std::isnan(scale)) {
      return;
    }
    const std::string_view name = t ? "fisher_scale" : "base_fisher_scale";
    if (parameters.normalize_fishers != 0 || parameters.fisher_power != 1) {
      throw InputError(fmt::format(
          "{0}: auto is measured for H = N F; set a number with {1}, or remove "
          "{1}",
          name,
          parameters.normalize_fishers != 0 ? "normalize_fishers"
                                            : "fisher_power"));
    }
    if (!found) {
      throw InputError(fmt::format(
          "{}: {}: auto expects a Fisher with a scale, got one without; run "
          "merganser calibrate, or set a number",
          fisher(t).string(),
          name));
    }
    scale = found->value;
  };
  for (size_t t = 0; t < parameters.fisher_scales.size(); ++t) {
    replace(parameters.fisher_scales[t], measured.models[t], t);
  }
  replace(parameters.base_fisher_scale, measured.base, std::nullopt);
}

} // namespace merganser
