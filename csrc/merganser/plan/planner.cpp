#include "merganser/plan/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "merganser/base/problems.h"
#include "merganser/base/quote.h"
#include "merganser/io/hub_cache.h"
#include "merganser/plan/check_configs.h"
#include "merganser/plan/check_inputs.h"
#include "merganser/plan/downloads.h"
#include "merganser/plan/fisher_notes.h"
#include "merganser/plan/map_names.h"
#include "merganser/plan/measured_rho.h"
#include "merganser/plan/measured_scale.h"
#include "merganser/plan/open_inputs.h"
#include "merganser/plan/output_config.h"
#include "merganser/plan/plan_subspace.h"
#include "merganser/plan/plan_tensors.h"
#include "merganser/plan/tensor_planner.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// Returns every setting of a recipe, with the name of its parameter.
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

// Returns "weight=0.2" where one setting is swept, otherwise "1", "2", ...
std::vector<std::string> name_outputs(
    const Recipe& recipe,
    Problems& problems) {
  std::vector<std::string> names = {""};
  const Setting* swept = nullptr;
  for (const auto& [name, setting] : all_settings(recipe)) {
    if (!setting->is_sweep()) {
      continue;
    }
    if (name == "fisher_power" && recipe.method->find_parameter(name)) {
      problems.add(
          "fisher_power cannot be swept: the outputs share what is read of a "
          "Fisher");
    }
    if (swept != nullptr && setting->outputs() != swept->outputs()) {
      problems.add(fmt::format(
          "one sweep has {} values, another has {}; the sweeps of a recipe "
          "advance together and need the same number",
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
    problems.add("a sweep contains the same value twice");
  }
  return names;
}

TaskHead plan_head(
    const MergePlan& plan,
    const PlanModel& model,
    Problems& problems) {
  TaskHead head;
  head.file = fmt::format(
      "heads/{}.safetensors",
      std::filesystem::path(model_name(model.recipe.model))
          .filename()
          .string());
  const auto add = [&](const std::string& stored, const std::string& name) {
    if (!plan.is_head(name)) {
      return;
    }
    const TensorSource source = model_source(plan, model, name);
    if (source.update != nullptr) {
      problems.add(fmt::format(
          "heads: per_task copies heads, but adapter {} updates tensor {}; "
          "merge the adapter into its model first, with the method passthrough",
          model.recipe.adapter->string(),
          quote(stored)));
    }
    head.tensors.push_back(source.tensor.info());
    head.tensors.back().name = stored;
    head.sources.push_back(source.tensor);
  };
  const NamedCheckpoint weights = plan.named(model.weights);
  for (const TensorInfo& tensor : weights.file.tensors()) {
    add(tensor.name, weights.name_of(tensor));
  }
  for (const std::string& name : added_tensors(plan, model)) {
    add(name, name);
  }
  return head;
}

void plan_heads(MergePlan& plan, Problems& problems) {
  std::set<std::string> files;
  for (const PlanModel& model : plan.slices.front().models) {
    plan.heads.push_back(plan_head(plan, model, problems));
    if (!files.insert(plan.heads.back().file).second) {
      problems.add(fmt::format(
          "two models would write the head file {}, which is named after "
          "their directories; rename one",
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
  const bool of_task_vectors =
      std::ranges::any_of(recipe.models, &RecipeModel::gram_of_task_vector);
  note(
      any(&RecipeModel::gram) || of_task_vectors, method.needs_grams(), "gram");
  note(recipe.subspace.has_value(), recipe.uses_subspace(), "subspace");
  note(
      any(&RecipeModel::num_examples) || recipe.base_num_examples,
      method.needs_num_examples,
      "num_examples");
  note(
      recipe.base_model.has_value(),
      method.needs_base || recipe.grams_of_task_vectors(),
      "the base's weights (only its config.json, tokenizer and copied "
      "tensors)");
  std::set<std::string> names;
  for (const auto& [name, setting] : all_settings(recipe)) {
    if (names.insert(name).second) {
      note(true, method.find_parameter(name) != nullptr, "parameter " + name);
    }
  }
}

// Notes what is read before the merge, beyond bytes_read, or held in memory.
void note_statistics(MergePlan& plan) {
  const MethodInfo& method = *plan.recipe.method;
  if (method.is_spectral()) {
    plan.notes.push_back(fmt::format(
        "{} holds a whole linear layer in memory, one per thread",
        method.name));
  } else if (method.needs_grams()) {
    plan.notes.push_back(fmt::format(
        "{} holds a whole layer with Gram matrices in memory, one at a time",
        method.name));
  } else if (method.needs_statistics()) {
    plan.notes.push_back(fmt::format(
        "{} reads each tensor several times: it measures the whole tensor "
        "before it merges it",
        method.name));
  }
  if (normalizes_fishers(plan)) {
    plan.notes.push_back(
        "normalize_fishers reads all Fishers once more, before the merge");
  }
}

// Notes files of other models that the output does not get.
void note_files(MergePlan& plan) {
  std::set<fs::path> compared = {plan.reference->path()};
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      if (compared.insert(model.recipe.model).second) {
        note_differences(
            ModelDir(model.recipe.model),
            *plan.reference,
            /*any_depth=*/!plan.recipe.slices.empty(),
            plan.notes);
      }
    }
  }
}

// Notes what adapters add to their models.
void note_added(MergePlan& plan) {
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      std::vector<std::string> names = added_tensors(plan, model);
      std::ranges::transform(names, names.begin(), quote);
      if (!names.empty()) {
        plan.notes.push_back(fmt::format(
            "adapter {} has tensors that its model {} lacks: {}; config.json "
            "does not change with them",
            model.recipe.adapter->string(),
            model.recipe.model.string(),
            list_some(names)));
      }
    }
  }
}

// Notes what of the inputs is left out.
void note_left_out(MergePlan& plan) {
  for (const auto& input : plan.inputs) {
    if (!input->left_out().empty()) {
      plan.notes.push_back(fmt::format(
          "{}: leaves out what the index does not name: {}",
          input->path().string(),
          list_some(input->left_out())));
    }
  }
}

void count_bytes(MergePlan& plan) {
  for (const TensorPlan& tensor : plan.tensors) {
    plan.bytes_read += tensor.bytes_read;
    plan.bytes_written += plan.outputs.size() * tensor.output.bytes();
  }
  for (const TaskHead& head : plan.heads) {
    for (const TensorInfo& tensor : head.tensors) {
      plan.bytes_read += tensor.bytes();
      plan.bytes_written += tensor.bytes();
    }
  }
}

} // namespace

MergePlan make_plan(Recipe recipe) {
  MergePlan plan;
  plan.recipe = std::move(recipe);
  const std::string& source = plan.recipe.source;
  Problems problems;
  open_inputs(plan, problems);
  plan.outputs = name_outputs(plan.recipe, problems);
  problems.throw_if_any(source); // only open inputs can be compared
  map_names(plan);
  check_inputs(plan, problems);
  read_num_examples(plan, problems);
  check_hashes(
      plan,
      [&](size_t input) { return plan.inputs[input]->head_hash(); },
      problems);
  if (plan.recipe.out_dtype || !plan.recipe.slices.empty()) {
    problems.collect([&] {
      const fs::path config = plan.reference->path() / "config.json";
      check_output_config(config);
      if (!plan.recipe.slices.empty()) {
        check_single_stack(
            config, plan.inputs[plan.reference_weights]->tensors());
        check_layer_numbers(config, plan.recipe.slices);
      }
    });
  }
  problems.throw_if_any(source);
  if (plan.recipe.heads == HeadMode::kPerTask) {
    plan_heads(plan, problems);
  }
  problems.throw_if_any(source);
  read_rhos(plan, problems);
  read_fisher_scales(plan, problems);
  plan_subspace(plan, problems);
  problems.throw_if_any(source);
  plan_tensors(plan, problems);
  problems.throw_if_any(source);
  count_bytes(plan);
  note_downloads(plan);
  note_added(plan);
  note_left_out(plan);
  std::ranges::move(unchecked_hashes(plan), std::back_inserter(plan.notes));
  note_unused(plan);
  note_statistics(plan);
  note_files(plan);
  note_fishers(plan);
  return plan;
}

} // namespace merganser
