#include "merganser/plan/fisher_notes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "merganser/base/quote.h"

namespace merganser {
namespace {

void note_averages(MergePlan& plan) {
  std::vector<std::string> names;
  for (const TensorPlan& tensor : plan.tensors) {
    if (tensor.lacks_fishers()) {
      names.push_back(quote(tensor.output.name));
    }
  }
  if (!names.empty()) {
    plan.notes.push_back(fmt::format(
        "no Fisher has these tensors, so that they become the average by "
        "weight, or with average_buffers: false the base's: {}",
        list_some(names)));
  }
}

void note_floor(MergePlan& plan) {
  if (plan.recipe.method->formula == MergeFormula::kEwr) {
    plan.notes.push_back(
        "ewr raises Fisher values below floor to it, often most of them; the "
        "merge reports their share");
  }
}

void note_estimators(MergePlan& plan) {
  std::set<std::string> estimators;
  for (const size_t fisher : fishers_of(plan)) {
    const Metadata& metadata = plan.inputs[fisher]->metadata();
    if (const auto found = metadata.find("estimator");
        found != metadata.end()) {
      estimators.insert(found->second);
    }
  }
  if (estimators.size() > 1 && !normalizes_fishers(plan)) {
    plan.notes.push_back(fmt::format(
        "the Fishers come from different estimators ({}), whose scales differ; "
        "use one, or normalize_fishers",
        fmt::join(estimators, ", ")));
  }
}

// Notes where H_0 cannot contain the H_t of the removed data.
void note_removed(MergePlan& plan) {
  if (plan.recipe.method->formula != MergeFormula::kRemoval) {
    return;
  }
  if (normalizes_fishers(plan)) {
    plan.notes.push_back(
        "normalize_fishers gives all Fishers one mean, but removal expects the "
        "base's to contain the removed data's");
    return;
  }
  double removed = 0;
  for (const PlanSlice& slice : plan.slices) {
    double examples = 0;
    for (const PlanModel& model : slice.models) {
      examples += model.num_examples;
    }
    removed = std::max(removed, examples);
  }
  if (removed > plan.base_num_examples) {
    plan.notes.push_back(fmt::format(
        "the base's Fisher stands for {} examples and those of the removed "
        "data for {}: it does not contain them, as removal expects; estimate "
        "it on all data of the base",
        plan.base_num_examples,
        removed));
  }
}

} // namespace

void note_fishers(MergePlan& plan) {
  note_averages(plan);
  note_floor(plan);
  note_estimators(plan);
  note_removed(plan);
}

} // namespace merganser
