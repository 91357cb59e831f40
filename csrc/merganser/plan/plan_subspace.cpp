#include "merganser/plan/plan_subspace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/hub_cache.h"
#include "merganser/plan/downloads.h"

namespace merganser {
namespace {

const std::string& file_of(const MergePlan& plan) {
  return plan.inputs[*plan.subspace]->path().native();
}

// Positions of the plan's models among the file's experts, by the first halves
// of their content hashes.
std::vector<size_t> find_experts(
    const MergePlan& plan,
    const SubspaceFisher& fisher) {
  std::vector<size_t> found;
  for (const PlanModel& model : plan.slices.front().models) {
    const std::string hash = plan.inputs[model.weights]->head_hash();
    const auto expert =
        std::ranges::find_if(fisher.experts, [&](const auto& loss) {
          const auto t = static_cast<size_t>(&loss - fisher.experts.data());
          return loss.model_hash.starts_with(hash) &&
              std::ranges::find(found, t) == found.end();
        });
    if (model.adapter || expert == fisher.experts.end()) {
      throw InputError(fmt::format(
          "{}: has no Fisher of {}{}, or fewer than the recipe lists; estimate "
          "it with merganser subspace --expert (or, for a model without data, "
          "--direction)",
          file_of(plan),
          model.recipe.model.string(),
          model.adapter ? " with its adapter" : ""));
    }
    found.push_back(static_cast<size_t>(expert - fisher.experts.begin()));
  }
  return found;
}

void check(const MergePlan& plan, const SubspaceFisher& fisher) {
  if (!plan.recipe.slices.empty() || plan.recipe.heads != HeadMode::kMerge) {
    throw InputError(fmt::format(
        "{} expects whole models and heads: merge",
        plan.recipe.method->needs_subspace ? plan.recipe.method->name
                                           : "weight: auto"));
  }
  if (const auto downloads = downloads_of(plan); !downloads.empty()) {
    throw InputError(fmt::format(
        "{}: names its models by their hashes, which need the weights of {}; "
        "download them first, with merganser download",
        file_of(plan),
        list_names(downloads)));
  }
  if (!fisher.base.model_hash.starts_with(
          plan.inputs[*plan.base]->head_hash())) {
    throw InputError(fmt::format(
        "{}: was estimated with another base than {}; estimate it with this "
        "model as --base",
        file_of(plan),
        plan.recipe.base_model->string()));
  }
}

void note_weights(MergePlan& plan, size_t output) {
  const SubspaceWeights& solution = plan.subspace_weights[output];
  const auto largest = std::ranges::max_element(
      solution.weights, {}, [](double x) { return std::abs(x); });
  const auto column = static_cast<size_t>(largest - solution.weights.begin());
  const size_t groups = plan.subspace_groups.size();
  const PlanModel& model = plan.slices.front().models[column / groups];
  const std::string validation = solution.expected
      ? fmt::format(
            "expected change of the objective {:.4g} ± {:.2g} by "
            "cross-validation",
            solution.expected->value,
            solution.expected->standard_error)
      : "from diagonal Fishers, without cross-validation";
  plan.notes.push_back(fmt::format(
      "{}shrink {}; {}; largest weight {:.3g}, of {} in {}",
      plan.outputs[output].empty() ? "" : plan.outputs[output] + ": ",
      solution.shrink,
      validation,
      *largest,
      model_name(model.recipe.model),
      quote(plan.subspace_groups[column % groups])));
  if (const auto reason = unstable(solution)) {
    plan.notes.push_back(
        *reason +
        "; estimate it with a larger --limit or with --groups global");
  }
}

void solve(MergePlan& plan) {
  SubspaceFisher fisher = SubspaceFisher::load(*plan.inputs[*plan.subspace]);
  check(plan, fisher);
  if (plan.recipe.has_auto_weights()) {
    fisher = fisher.as_one_group();
  }
  const std::vector<size_t> experts = find_experts(plan, fisher);
  plan.subspace_hashes = {fisher.base.model_hash};
  for (const size_t t : experts) {
    plan.subspace_hashes.push_back(fisher.experts[t].model_hash);
  }
  for (size_t g = 0; g < fisher.groups.size(); ++g) {
    plan.subspace_groups.push_back(fisher.groups[g].name);
    for (const std::string& tensor : fisher.groups[g].tensors) {
      plan.subspace_group_of[tensor] = g;
    }
  }
  std::vector<const Settings*> settings;
  for (size_t t = 0; t < experts.size(); ++t) {
    const RecipeModel& model = plan.slices.front().models[t].recipe;
    check_no_weight(
        fisher.experts[experts[t]], model.parameters, model.model.string());
    settings.push_back(&model.parameters);
  }
  for (size_t output = 0; output < plan.outputs.size(); ++output) {
    plan.subspace_weights.push_back(solve_subspace(
        fisher,
        experts,
        *plan.recipe.method,
        settings,
        plan.recipe.parameters,
        output));
    note_weights(plan, output);
  }
}

} // namespace

void plan_subspace(MergePlan& plan, Problems& problems) {
  if (plan.subspace) {
    problems.collect([&] { solve(plan); });
  }
}

std::vector<double> subspace_weights(
    const MergePlan& plan,
    const std::string& tensor,
    size_t output) {
  const auto group = plan.subspace_group_of.find(tensor);
  if (group == plan.subspace_group_of.end()) {
    throw InputError(fmt::format(
        "{}: lacks tensor {}, which differs between the models; estimate it on "
        "these models, with the tensor trainable (a buffer must be equal)",
        file_of(plan),
        quote(tensor)));
  }
  std::vector<double> weights;
  const size_t groups = plan.subspace_groups.size();
  for (size_t t = 0; t < plan.slices.front().models.size(); ++t) {
    weights.push_back(
        plan.subspace_weights[output].weights[t * groups + group->second]);
  }
  return weights;
}

} // namespace merganser
