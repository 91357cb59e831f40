#include "merganser/plan/plan.h"

#include <algorithm>
#include <set>

#include "merganser/base/parallel.h"
#include "merganser/base/text_table.h"
#include "merganser/merge/chunk_merger.h"
#include "merganser/merge/fisher_means.h"
#include "merganser/merge/gram.h"
#include "merganser/merge/ranked_mask.h"
#include "merganser/merge/tensor_statistics.h"
#include "merganser/plan/check_inputs.h"
#include "merganser/plan/check_tensors.h"
#include "merganser/plan/open_inputs.h"
#include "merganser/plan/output_config.h"
#include "merganser/plan/planner.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// Every setting of a recipe, with its parameter's name.
std::vector<std::pair<std::string, const Setting*>> all_settings(
    const Recipe& recipe) {
  std::vector<std::pair<std::string, const Setting*>> all;
  const auto add = [&](const Settings& settings) {
    for (const auto& [name, setting] : settings) {
      all.emplace_back(name, &setting);
    }
  };
  add(recipe.parameters);
  for (const RecipeModel& model : recipe.models) {
    add(model.parameters);
  }
  for (const RecipeSlice& slice : recipe.slices) {
    add(slice.parameters);
    for (const RecipeModel& model : slice.models) {
      add(model.parameters);
    }
  }
  return all;
}

// "weight=0.2" where one setting is swept, else "1", "2", ...
std::vector<std::string> name_outputs(
    const Recipe& recipe,
    Problems& problems) {
  std::vector<std::string> names = {""};
  const Setting* swept = nullptr;
  for (const auto& [name, setting] : all_settings(recipe)) {
    if (!setting->is_sweep()) {
      continue;
    }
    if (swept != nullptr && setting->outputs() != swept->outputs()) {
      problems.add(fmt::format(
          "one sweep has {} values, another one {}: they go side by side, so "
          "that all have equally many",
          swept->outputs(),
          setting->outputs()));
      return names;
    }
    names.clear();
    for (size_t i = 0; i < setting->outputs(); ++i) {
      names.push_back(
          swept == nullptr ? fmt::format("{}={}", name, *setting->at("", 0, i))
                           : fmt::format("{}", i + 1));
    }
    swept = setting;
  }
  if (std::set(names.begin(), names.end()).size() < names.size()) {
    problems.add("a sweep has the same value twice");
  }
  return names;
}

TaskHead plan_head(const MergePlan& plan, const PlanModel& model) {
  TaskHead head;
  head.file = fmt::format(
      "heads/{}.safetensors", model.recipe.model.filename().string());
  head.model = model.weights;
  for (const TensorInfo& tensor : plan.inputs[model.weights]->tensors()) {
    if (is_head_tensor(tensor.name)) {
      head.tensors.push_back(tensor);
    }
  }
  return head;
}

void plan_heads(MergePlan& plan, Problems& problems) {
  std::set<std::string> files;
  for (const PlanModel& model : plan.slices.front().models) {
    plan.heads.push_back(plan_head(plan, model));
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
  const MethodInfo& method = *recipe.method;
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
  note(recipe.base_gram.has_value(), method.needs_base_gram(), "base_gram");
  note(any(&RecipeModel::gram), method.needs_grams(), "gram");
  note(
      any(&RecipeModel::num_examples) || recipe.base_num_examples,
      method.needs_num_examples,
      "num_examples");
  note(
      recipe.base_model.has_value(),
      method.needs_base,
      "the base's weights (only its config.json, tokenizer and what is "
      "copied)");
  std::set<std::string> names;
  for (const auto& [name, setting] : all_settings(recipe)) {
    if (names.insert(name).second) {
      note(true, method.find_parameter(name) != nullptr, "parameter " + name);
    }
  }
}

// What is read again before a tensor is merged, beyond bytes_read.
void note_statistics(MergePlan& plan) {
  const MethodInfo& method = *plan.recipe.method;
  if (method.needs_grams()) {
    plan.notes.push_back(fmt::format(
        "{} holds one layer with Gram matrices at a time as a whole",
        method.name));
  } else if (method.needs_statistics()) {
    plan.notes.push_back(fmt::format(
        "{} must know a whole tensor before it merges it, and reads it several "
        "times",
        method.name));
  }
  if (needs_fisher_means(plan)) {
    plan.notes.push_back(
        "normalize_fishers reads all Fishers once before the merge");
  }
}

// Bytes that a thread holds of the adapters of a tensor: every A and B, and one
// of them as it is stored.
uint64_t adapter_memory(const TensorPlan& tensor) {
  const uint64_t width = tensor.float64 ? sizeof(double) : sizeof(float);
  uint64_t held = 0;
  uint64_t stored = 0;
  for (const TensorSource& source : tensor.sources) {
    if (source.update != nullptr) {
      const TensorInfo& a = source.update->a.info();
      const TensorInfo& b = source.update->b.info();
      held += width * (a.numel() + b.numel());
      stored = std::max({stored, a.bytes(), b.bytes()});
    }
  }
  return held + stored;
}

// Bytes of the largest strip of an output.
uint64_t strip_memory(const MergePlan& plan) {
  uint64_t most = 0;
  for (const TensorPlan& tensor : plan.tensors) {
    const int64_t n = std::min(kStripElements, tensor.output.numel());
    most = std::max<uint64_t>(most, n * dtype_bits(tensor.output.dtype) / 8);
  }
  return most;
}

} // namespace

MergePlan::MergePlan(Recipe given) : recipe(std::move(given)) {
  Problems problems;
  open_files(*this, problems);
  outputs = name_outputs(recipe, problems);
  problems.throw_if_any(recipe.source); // what is not open cannot be compared
  compare_inputs(*this, problems);
  read_scales(*this, problems);
  check_hashes(
      *this,
      [&](size_t input) { return inputs[input]->head_hash(); },
      problems);
  if (recipe.out_dtype || !recipe.slices.empty()) {
    problems.collect([&] { check_config(reference->path() / "config.json"); });
  }
  problems.throw_if_any(recipe.source);
  if (recipe.heads == HeadMode::kPerTask) {
    plan_heads(*this, problems);
  }
  problems.throw_if_any(recipe.source);
  plan_tensors(*this, problems);
  problems.throw_if_any(recipe.source);

  for (const TensorPlan& tensor : tensors) {
    bytes_read += tensor.bytes_read;
    bytes_written += outputs.size() * tensor.output.bytes();
  }
  for (const TaskHead& head : heads) {
    for (const TensorInfo& tensor : head.tensors) {
      bytes_read += tensor.bytes();
      bytes_written += tensor.bytes();
    }
  }
  note_unused(*this);
  note_statistics(*this);
}

uint64_t MergePlan::peak_memory(int threads) const {
  uint64_t one = 0;
  for (const bool float64 : {false, true}) {
    size_t sources = 0;
    size_t models = 0;
    uint64_t adapters = 0; // of one tensor, whose matrices are held
    for (const TensorPlan& tensor : tensors) {
      if (tensor.action == TensorAction::kMerge && tensor.float64 == float64) {
        adapters = std::max(adapters, adapter_memory(tensor));
        sources = std::max(sources, tensor.sources.size());
        models = std::max(models, tensor.scales.size());
      }
    }
    one += adapters;
    if (sources > 0) {
      const size_t task_vectors =
          recipe.method->sparsify == Sparsify::kNone ? 0 : models;
      one += float64 ? ChunkMerger<double>::memory(sources, task_vectors)
                     : ChunkMerger<float>::memory(sources, task_vectors);
      one += statistics_memory(*recipe.method, models);
    }
  }
  uint64_t whole = 0; // of a tensor, what the threads have in common
  for (const TensorPlan& tensor : tensors) {
    uint64_t chosen = 0;
    if (recipe.method->sparsify == Sparsify::kRanked) {
      chosen =
          tensor.scales.size() * outputs.size() * choice_memory(tensor.output);
    }
    whole = std::max({whole, gram_memory(tensor), chosen});
  }
  one += outputs.size() * strip_memory(*this);
  return whole + thread_count(threads) * one;
}

int MergePlan::affordable_threads(int threads, uint64_t memory) const {
  const uint64_t one = peak_memory(1);
  if (one > memory) {
    throw InputError(fmt::format(
        "one thread needs {} of buffers for this merge, and {} are allowed: "
        "give it more memory",
        format_bytes(one),
        format_bytes(memory)));
  }
  threads = thread_count(threads);
  while (peak_memory(threads) > memory) {
    --threads;
  }
  return threads;
}

} // namespace merganser
