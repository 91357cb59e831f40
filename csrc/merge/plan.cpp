#include "merge/plan.h"

#include <algorithm>
#include <set>
#include <thread>

#include "io/quote.h"
#include "merge/compatibility.h"
#include "merge/fisher_file.h"
#include "merge/problems.h"
#include "merge/tensor_checks.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

void open_files(MergePlan& plan, Problems& problems) {
  const Recipe& recipe = plan.recipe;
  const MethodInfo& method = method_info(recipe.method);
  if (recipe.base_model) {
    problems.collect([&] {
      plan.reference.emplace(*recipe.base_model);
      plan.base.emplace(*recipe.base_model);
    });
  }
  if (method.needs_base_fisher) {
    problems.collect([&] { plan.base_fisher.emplace(*recipe.base_fisher); });
  }
  for (const RecipeModel& model : recipe.models) {
    problems.collect([&] {
      ModelDir folder(model.model);
      if (!recipe.base_model && !plan.reference) {
        plan.reference.emplace(std::move(folder));
      }
      plan.models.emplace_back(model.model);
    });
    if (method.needs_fishers) {
      problems.collect([&] { plan.fishers.emplace_back(*model.fisher); });
    }
  }
}

void compare_inputs(const MergePlan& plan, Problems& problems) {
  const bool skip_heads = plan.recipe.heads != HeadMode::kMerge;
  const Checkpoint& reference = plan.reference_weights();
  check_types(reference, skip_heads, problems);
  for (const Checkpoint& model : plan.models) {
    if (model.path() == reference.path()) {
      continue;
    }
    problems.collect([&] {
      compare_directories(
          ModelDir(model.path()), *plan.reference, skip_heads, problems);
    });
    compare_tensors(model, reference, skip_heads, problems);
  }
  if (!plan.base) {
    compare_integers(plan.models, skip_heads, problems);
  }
  if (plan.base_fisher) {
    compare_fisher(*plan.base_fisher, *plan.base, skip_heads, problems);
  }
  for (size_t t = 0; t < plan.fishers.size(); ++t) {
    compare_fisher(plan.fishers[t], plan.models[t], skip_heads, problems);
  }
}

// The recipe's number of examples, or else the file's.
double read_scale(
    const Checkpoint& fisher,
    const std::optional<double>& given,
    const char* key) {
  const auto metadata =
      FisherMetadata::parse(fisher.metadata(), fisher.files().front());
  if (given) {
    return *given;
  }
  if (!metadata) {
    throw InputError(fmt::format(
        "{} does not say how many examples it stands for, give {} in the "
        "recipe",
        fisher.path().string(),
        key));
  }
  return static_cast<double>(metadata->num_examples);
}

void read_scales(MergePlan& plan, Problems& problems) {
  const Recipe& recipe = plan.recipe;
  plan.scales.resize(plan.fishers.size(), 1);
  if (!method_info(recipe.method).needs_num_examples) {
    return;
  }
  for (size_t t = 0; t < plan.fishers.size(); ++t) {
    problems.collect([&] {
      plan.scales[t] = read_scale(
          plan.fishers[t], recipe.models[t].num_examples, "num_examples");
    });
  }
  if (plan.base_fisher) {
    problems.collect([&] {
      plan.base_scale = read_scale(
          *plan.base_fisher, recipe.base_num_examples, "base_num_examples");
    });
  }
}

TensorPlan plan_tensor(const MergePlan& plan, const TensorInfo& tensor) {
  TensorPlan row;
  row.output = tensor;
  row.bytes_read = tensor.bytes();
  if (plan.recipe.heads != HeadMode::kMerge && is_head_tensor(tensor.name)) {
    row.action = TensorAction::kCopy;
    row.reason = "the base's head";
  } else if (tensor_kind(tensor.dtype) == TensorKind::kInteger) {
    row.action = TensorAction::kCopy;
    row.reason = plan.base ? "the base's integers" : "integers that agree";
  } else {
    row.float64 = plan.recipe.float64;
    row.bytes_read = 0;
    for (const Checkpoint* source : plan.sources()) {
      const TensorInfo* info = source->find(tensor.name);
      row.bytes_read += info->bytes();
      row.float64 |= info->dtype == DType::kF64;
    }
    row.output.dtype = plan.recipe.out_dtype.value_or(tensor.dtype);
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

  for (const TensorInfo& tensor : reference_weights().tensors()) {
    tensors.push_back(plan_tensor(*this, tensor));
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

std::vector<const Checkpoint*> MergePlan::sources() const {
  std::vector<const Checkpoint*> all;
  if (method_info(recipe.method).needs_base) {
    all.push_back(&*base);
  }
  if (base_fisher) {
    all.push_back(&*base_fisher);
  }
  for (const auto* group : {&models, &fishers}) {
    for (const Checkpoint& checkpoint : *group) {
      all.push_back(&checkpoint);
    }
  }
  return all;
}

uint64_t MergePlan::peak_memory(int threads) const {
  const bool float64 =
      std::ranges::any_of(tensors, [](const auto& row) { return row.float64; });
  // Per element: every source and the result, and room to convert one of them.
  const uint64_t bytes = (sources().size() + 1) * (float64 ? 8 : 4) + 8;
  return thread_count(threads) * kChunkElements * bytes;
}

int thread_count(int requested) {
  return requested > 0
      ? requested
      : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

} // namespace merganser
