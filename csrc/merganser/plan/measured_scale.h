#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/problems.h"
#include "merganser/io/task_vector.h"
#include "merganser/plan/plan.h"
#include "merganser/recipe/parameter_values.h"

namespace merganser {

// Scales of Fishers from their metadata; nullopt: not measured.
struct MeasuredScales {
  std::optional<Estimate> base;
  std::vector<std::optional<Estimate>> models;
};

// Sets PlanModel::fisher_scale and MergePlan::base_fisher_scale from the
// metadata of the Fishers, where the method has the parameters.
void read_fisher_scales(MergePlan& plan, Problems& problems);

// Replaces kAuto in fisher_scale and base_fisher_scale. `fisher`: the path of a
// model's Fisher; nullopt: of the base's. Throws InputError naming the Fisher
// of one that was not measured, and for an H other than scale N F.
MERGANSER_API void replace_auto_scales(
    TensorParameters& parameters,
    const MeasuredScales& measured,
    const std::function<std::filesystem::path(std::optional<size_t> t)>&
        fisher);

} // namespace merganser
