#include "merge/plan.h"

#include <algorithm>
#include <set>

#include "io/parallel.h"
#include "merge/chunk_merger.h"
#include "merge/plan_inputs.h"
#include "merge/tensor_checks.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

TensorPlan plan_tensor(
    const MergePlan& plan,
    const std::vector<MergeSource>& sources,
    const TensorInfo& tensor) {
  TensorPlan row;
  row.output = tensor;
  if (plan.recipe.heads != HeadMode::kMerge && is_head_tensor(tensor.name)) {
    row.action = TensorAction::kCopy;
    row.reason = "the base's head";
  } else if (tensor_kind(tensor.dtype) == TensorKind::kInteger) {
    row.action = TensorAction::kCopy;
    row.reason = plan.base ? "the base's integers" : "integers that agree";
  } else {
    row.float64 = plan.recipe.float64;
    for (const MergeSource& source : sources) {
      row.sources.push_back(source.checkpoint->at(tensor.name));
      row.float64 |= row.sources.back().info().dtype == DType::kF64;
    }
    row.output.dtype = plan.recipe.out_dtype.value_or(tensor.dtype);
  }
  if (row.action == TensorAction::kCopy) {
    row.sources = {plan.reference_weights().at(tensor.name)};
  }
  for (const StoredTensor& source : row.sources) {
    row.bytes_read += source.info().bytes();
  }
  return row;
}

TaskHead plan_head(const Checkpoint& model, const fs::path& folder) {
  TaskHead head;
  head.file = fmt::format("heads/{}.safetensors", folder.filename().string());
  for (const TensorInfo& tensor : model.tensors()) {
    if (is_head_tensor(tensor.name)) {
      head.tensors.push_back(tensor);
    }
  }
  return head;
}

void plan_heads(MergePlan& plan, Problems& problems) {
  std::set<std::string> files;
  for (size_t t = 0; t < plan.models.size(); ++t) {
    plan.heads.push_back(
        plan_head(plan.models[t], plan.recipe.models[t].model));
    if (!files.insert(plan.heads.back().file).second) {
      problems.add(fmt::format(
          "two models would have the head file {}, which is named after "
          "their folders: rename one",
          plan.heads.back().file));
    }
  }
}

void note_unused(MergePlan& plan) {
  const Recipe& recipe = plan.recipe;
  const MethodInfo& method = method_info(recipe.method);
  const auto note = [&](bool given, bool used, std::string_view what) {
    if (given && !used) {
      plan.notes.push_back(
          fmt::format("{} does not use {}", method.name, what));
    }
  };
  const auto any = [&](auto member) {
    return std::ranges::any_of(recipe.models, [&](const RecipeModel& model) {
      return (model.*member).has_value();
    });
  };
  note(recipe.base_fisher.has_value(), method.needs_base_fisher, "base_fisher");
  note(any(&RecipeModel::fisher), method.needs_fishers, "fisher");
  note(
      any(&RecipeModel::num_examples) || recipe.base_num_examples,
      method.needs_num_examples,
      "num_examples");
  note(
      recipe.base_model.has_value(),
      method.needs_base,
      "the base's weights (only its config.json, tokenizer and what is "
      "copied)");
}

} // namespace

MergePlan::MergePlan(Recipe given)
    : recipe(std::move(given)), weights(recipe.weights()) {
  Problems problems;
  open_files(*this, problems);
  problems.throw_if_any(recipe.source); // what is not open cannot be compared
  compare_inputs(*this, problems);
  read_scales(*this, problems);
  if (recipe.heads == HeadMode::kPerTask) {
    plan_heads(*this, problems);
  }
  problems.throw_if_any(recipe.source);

  const std::vector<MergeSource> merged = sources();
  for (const TensorInfo& tensor : reference_weights().tensors()) {
    tensors.push_back(plan_tensor(*this, merged, tensor));
    bytes_read += tensors.back().bytes_read;
    bytes_written += tensors.back().output.bytes();
  }
  for (const TaskHead& head : heads) {
    for (const TensorInfo& tensor : head.tensors) {
      bytes_read += tensor.bytes();
      bytes_written += tensor.bytes();
    }
  }
  note_unused(*this);
}

std::vector<MergeSource> MergePlan::sources() const {
  std::vector<MergeSource> all;
  if (method_info(recipe.method).needs_base) {
    all.push_back({&*base, /*is_fisher=*/false});
  }
  if (base_fisher) {
    all.push_back({&*base_fisher, /*is_fisher=*/true});
  }
  for (const Checkpoint& model : models) {
    all.push_back({&model, /*is_fisher=*/false});
  }
  for (const Checkpoint& fisher : fishers) {
    all.push_back({&fisher, /*is_fisher=*/true});
  }
  return all;
}

std::vector<const Checkpoint*> MergePlan::inputs() const {
  std::vector<const Checkpoint*> all;
  if (base && !method_info(recipe.method).needs_base) {
    all.push_back(&*base);
  }
  for (const MergeSource& source : sources()) {
    all.push_back(source.checkpoint);
  }
  return all;
}

uint64_t MergePlan::peak_memory(int threads) const {
  const bool float32 = std::ranges::any_of(
      tensors, [](const auto& row) { return !row.float64; });
  const bool float64 =
      std::ranges::any_of(tensors, [](const auto& row) { return row.float64; });
  const size_t count = sources().size();
  return thread_count(threads) *
      ((float32 ? ChunkMerger<float>::memory(count) : 0) +
       (float64 ? ChunkMerger<double>::memory(count) : 0));
}

} // namespace merganser
