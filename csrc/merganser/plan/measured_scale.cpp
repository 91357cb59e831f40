#include "merganser/plan/measured_scale.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "merganser/base/error.h"
#include "merganser/io/fisher_file.h"

namespace merganser {
namespace {

// The scale in a Fisher's metadata. Notes one that the merge uses, where
// `setting` is auto, and that may as well be 0.
std::optional<Estimate> read_scale(
    MergePlan& plan,
    const std::optional<size_t>& input,
    const Setting* setting) {
  constexpr double kErrors = 2; // standard errors
  if (!input) {
    return std::nullopt;
  }
  const Checkpoint& file = *plan.inputs[*input];
  const auto metadata = FisherMetadata::parse(file.metadata(), file.path());
  if (!metadata || !metadata->scale) {
    return std::nullopt;
  }
  const Estimate& scale = metadata->scale->scale;
  if (setting != nullptr && setting->has_auto() &&
      !(scale.value > kErrors * scale.standard_error)) {
    plan.notes.push_back(fmt::format(
        "{}: its scale is {:.3g} ± {:.2g}; calibrate it with a larger "
        "--limit, or set a number",
        file.path().string(),
        scale.value,
        scale.standard_error));
  }
  return scale;
}

} // namespace

void read_fisher_scales(MergePlan& plan, Problems& problems) {
  if (plan.recipe.method->find_parameter("fisher_scale") == nullptr) {
    return;
  }
  const Settings& common = plan.recipe.parameters;
  problems.collect([&] {
    plan.base_fisher_scale = read_scale(
        plan, plan.base_fisher, find_setting("base_fisher_scale", {&common}));
  });
  for (PlanSlice& slice : plan.slices) {
    for (PlanModel& model : slice.models) {
      problems.collect([&] {
        model.fisher_scale = read_scale(
            plan,
            model.fisher,
            find_setting(
                "fisher_scale",
                {&model.recipe.parameters, &slice.parameters, &common}));
      });
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
