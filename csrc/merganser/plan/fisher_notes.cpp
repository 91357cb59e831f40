#include "merganser/plan/fisher_notes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <vector>

#include "merganser/base/quote.h"
#include "merganser/io/fisher_file.h"

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

// Samples up to 4,096 values of a Fisher unless it is float64: eight runs,
// evenly spread over it.
std::vector<float> sample_values(const StoredTensor& tensor) {
  constexpr int64_t kRuns = 8;
  constexpr int64_t kRun = 512;
  if (tensor.info().dtype == DType::kF64) {
    return {};
  }
  const int64_t n = tensor.info().numel();
  const int64_t count = std::min(n, kRuns * kRun);
  const int64_t run = count < kRuns ? count : count / kRuns;
  std::vector<float> values;
  for (int64_t begin = 0; begin + run <= n && run > 0;
       begin += std::max(run, n / kRuns)) {
    values.resize(values.size() + run);
    read_fisher_values(tensor, std::span(values).last(run), begin);
  }
  return values;
}

// Only the merge reads all values; a sample says beforehand what floor does.
void note_floor(MergePlan& plan) {
  if (plan.recipe.method->formula != MergeFormula::kEwr) {
    return;
  }
  int64_t below = 0;
  int64_t count = 0;
  for (const TensorPlan& tensor : plan.tensors) {
    if (tensor.action != TensorAction::kMerge || tensor.lacks_fishers()) {
      continue;
    }
    for (const TensorSource& source : tensor.sources) {
      if (!source.is_fisher) {
        continue;
      }
      const std::vector<float> values = sample_values(source.tensor);
      count += std::ssize(values);
      below += std::ranges::count_if(values, [&](float value) {
        return value < tensor.parameters[0].floor;
      });
    }
  }
  if (count > 0) {
    plan.notes.push_back(fmt::format(
        "ewr raises Fisher values below floor to it: {:.0f} % of {} sampled "
        "values; the merge reports the share of all",
        100.0 * static_cast<double>(below) / static_cast<double>(count),
        count));
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
  const auto note = different_scales(estimators, *plan.recipe.method);
  if (note && !normalizes_fishers(plan)) {
    plan.notes.push_back(*note);
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

std::optional<std::string> different_scales(
    const std::set<std::string>& estimators,
    const MethodInfo& method) {
  std::set<std::string_view> scales;
  for (const std::string& name : estimators) {
    // Unbiased estimates of one quantity.
    const bool unbiased = name == "mc" || name == "mc_batch";
    scales.insert(unbiased ? std::string_view("exact") : name);
  }
  if (scales.size() < 2) {
    return std::nullopt;
  }
  return fmt::format(
      "the Fishers come from different estimators ({}), whose scales differ; "
      "use one{}",
      fmt::join(estimators, ", "),
      method.find_parameter("normalize_fishers") != nullptr
          ? ", or normalize_fishers"
          : "");
}

void note_fishers(MergePlan& plan) {
  note_averages(plan);
  note_floor(plan);
  note_estimators(plan);
  note_removed(plan);
}

} // namespace merganser
