#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/problems.h"
#include "merganser/io/task_vector.h"
#include "merganser/plan/plan.h"

namespace merganser {

// rho = -N_t <tau, g> / (N_0 tau^T F_0 tau): how much of the gradient that the
// proximal term of gradient matching would have left at the end of training the
// expert's loss has along its task vector. The limit 1 for a zero task vector,
// which no rho changes; not finite where the base's Fisher has no curvature
// along a task vector with a slope.
MERGANSER_API Estimate measured_rho(
    const TaskVectorStatistics& statistics,
    double num_examples,
    double base_num_examples);

// Reason why a merge by a measured rho is unstable, as elements of a task
// vector may get weights of up to |rho|: far from the values between 0, of
// plain fine-tuning, and 1, or a standard error as wide as these. Empty if it
// is stable.
MERGANSER_API std::optional<std::string> unstable_rho(const Estimate& rho);

// False if a recipe sets rho.
MERGANSER_API bool takes_measured_rho(
    const Settings& model,
    const Settings& merge);

// Sets PlanModel::rho from the metadata of the models' Fishers, where the
// method has the parameter and they have it. Notes those that are unstable.
void read_rhos(MergePlan& plan, Problems& problems);

// Replaces kAuto. `measured`: one per model. Throws InputError naming the
// Fisher of one that was not measured or is not finite.
MERGANSER_API void replace_auto(
    std::vector<double>& rho,
    const std::vector<std::optional<Estimate>>& measured,
    const std::function<std::filesystem::path(size_t t)>& fisher);

} // namespace merganser
