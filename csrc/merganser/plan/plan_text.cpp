#include "merganser/plan/plan_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/io/fisher_file.h"
#include "merganser/plan/downloads.h"
#include "merganser/recipe/setting.h"

namespace merganser {
namespace {

using nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

// Name of a model or an adapter, as in the recipe if it is not downloaded.
std::string describe_path(const std::filesystem::path& path) {
  const auto download = find_header_only(path);
  return download ? download->model : path.string();
}

// The setting, or the weights that `auto` stands for.
std::string describe_weight(
    const MergePlan& plan,
    const PlanSlice& slice,
    const PlanModel& model) {
  if (plan.subspace) {
    const size_t t = &model - slice.models.data();
    const SubspaceWeights& found = plan.subspace_weights.front();
    if (plan.recipe.has_auto_weights()) {
      return fmt::format("{:.4f}", found.weights[t]);
    }
    if (found.is_direction[t]) {
      return "direction";
    }
  }
  const Setting* setting = find_setting(
      plan.recipe.method->weights == WeightRule::kScale ? "scale" : "weight",
      {&model.recipe.parameters, &slice.parameters, &plan.recipe.parameters});
  return setting == nullptr ? "" : setting->to_yaml();
}

// The setting, or the value that `auto` stands for.
std::string describe_setting(
    const MergePlan& plan,
    std::string_view name,
    std::initializer_list<const Settings*> levels,
    const std::optional<Estimate>& measured) {
  const Setting* setting = find_setting(name, levels);
  const double fallback = plan.recipe.method->fallback(name);
  const std::string given = setting != nullptr ? setting->to_yaml()
      : std::isnan(fallback)                   ? "auto"
                                               : fmt::format("{}", fallback);
  return given == "auto" && measured
      ? fmt::format(
            "{:.3f} ± {:.3f}", measured->value, measured->standard_error)
      : given;
}

// Columns of parameters that can be measured: rho of the methods that have it,
// scales of Fishers where the recipe sets one.
std::vector<std::string_view> measured_columns(const MergePlan& plan) {
  const MethodInfo& method = *plan.recipe.method;
  std::vector<std::string_view> columns;
  if (method.find_parameter("rho") != nullptr) {
    columns.emplace_back("rho");
  }
  const auto sets_scale = [](const Settings& settings) {
    return settings.contains("fisher_scale") ||
        settings.contains("base_fisher_scale");
  };
  bool scaled = sets_scale(plan.recipe.parameters);
  for (const PlanSlice& slice : plan.slices) {
    scaled |= sets_scale(slice.parameters);
    for (const PlanModel& model : slice.models) {
      scaled |= sets_scale(model.recipe.parameters);
    }
  }
  if (scaled && method.find_parameter("fisher_scale") != nullptr) {
    columns.emplace_back("scale");
  }
  return columns;
}

Rows describe_inputs(const MergePlan& plan) {
  const Recipe& recipe = plan.recipe;
  const MethodInfo& method = *recipe.method;
  Rows rows = {{"", "weight", "model"}};
  const auto add_columns = [&](bool used, const char* files) {
    if (used) {
      rows.front().insert(rows.front().end(), {"examples", files});
    }
  };
  const std::vector<std::string_view> measured = measured_columns(plan);
  rows.front().insert(
      rows.front().begin() + 2, measured.begin(), measured.end());
  const auto add_measured = [&](const auto& describe) {
    for (size_t i = 0; i < measured.size(); ++i) {
      const auto at = static_cast<std::ptrdiff_t>(2 + i);
      rows.back().insert(rows.back().begin() + at, describe(measured[i]));
    }
  };
  add_columns(method.needs_fishers, "Fisher");
  add_columns(method.needs_grams(), "Gram matrices");
  const auto add_file =
      [&](bool used, std::optional<size_t> file, double examples) {
        if (used) {
          const bool counts = method.needs_num_examples && file;
          rows.back().push_back(counts ? fmt::format("{}", examples) : "");
          rows.back().push_back(
              file ? with_storage(
                         plan.inputs[*file]->path(),
                         storage_of(plan.inputs[*file]->metadata()))
                   : "");
        }
      };
  if (plan.base) {
    rows.push_back({"base", "", describe_path(*recipe.base_model)});
    add_measured([&](std::string_view column) -> std::string {
      const bool has =
          column == "scale" && method.find_parameter("base_fisher_scale");
      return !has ? ""
                  : describe_setting(
                        plan,
                        "base_fisher_scale",
                        {&recipe.parameters},
                        plan.base_fisher_scale);
    });
    add_file(method.needs_fishers, plan.base_fisher, plan.base_num_examples);
    add_file(method.needs_grams(), plan.base_gram, plan.base_gram_num_examples);
  }
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      std::string name = describe_path(model.recipe.model);
      if (model.recipe.adapter) {
        name += " + " + describe_path(*model.recipe.adapter);
      }
      if (!recipe.slices.empty()) {
        name += fmt::format(
            ", layers {} to {}",
            model.recipe.first_layer,
            model.recipe.last_layer - 1);
      }
      rows.push_back(
          {fmt::format("model {}", rows.size() - !!plan.base),
           describe_weight(plan, slice, model),
           std::move(name)});
      add_measured([&](std::string_view column) {
        const bool is_rho = column == "rho";
        return describe_setting(
            plan,
            is_rho ? "rho" : "fisher_scale",
            {&model.recipe.parameters, &slice.parameters, &recipe.parameters},
            is_rho ? model.rho : model.fisher_scale);
      });
      add_file(method.needs_fishers, model.fisher, model.num_examples);
      if (recipe.grams_of_task_vectors()) {
        rows.back().push_back(fmt::format("{}", model.gram_num_examples));
        rows.back().emplace_back("of the task vector");
      } else {
        add_file(method.needs_grams(), model.gram, model.gram_num_examples);
      }
    }
  }
  return rows;
}

std::string describe_action(const TensorPlan& tensor) {
  if (tensor.action == TensorAction::kCopy) {
    return "copy " + tensor.reason;
  }
  if (!tensor.reason.empty()) {
    return tensor.reason;
  }
  if (tensor.spectral) {
    return "merge by singular vectors";
  }
  if (tensor.grams.empty()) {
    return "merge";
  }
  return tensor.grams.back().of_task_vector
      ? "merge with Gram matrices of task vectors"
      : "merge with Gram matrices";
}

Rows describe_tensors(const MergePlan& plan) {
  Rows rows = {{"tensor", "shape", "type", "action", "read", "write"}};
  for (const TensorPlan& tensor : plan.tensors) {
    rows.push_back(
        {tensor.output.name,
         tensor.output.shape_text(),
         std::string(dtype_name(tensor.output.dtype)),
         describe_action(tensor),
         format_bytes(tensor.bytes_read),
         format_bytes(plan.outputs.size() * tensor.output.bytes())});
  }
  return rows;
}

// N examples that a Fisher or Gram file stands for.
struct Statistic {
  std::optional<size_t> input;
  double num_examples;
};

ordered_json describe_model(
    const MergePlan& plan,
    const std::filesystem::path& model,
    const Statistic& fisher,
    const Statistic& gram) {
  ordered_json entry = {{"model", describe_path(model)}};
  if (fisher.input) {
    entry["fisher"] = plan.inputs[*fisher.input]->path().string();
    entry["num_examples"] = fisher.num_examples;
    entry["fisher_storage"] =
        storage_of(plan.inputs[*fisher.input]->metadata());
  }
  if (gram.input) {
    entry["gram"] = plan.inputs[*gram.input]->path().string();
    entry["gram_num_examples"] = gram.num_examples;
  }
  return entry;
}

ordered_json describe_sources(const MergePlan& plan, const TensorPlan& tensor) {
  ordered_json sources = ordered_json::array();
  const auto add = [&](const TensorSource& source) {
    sources.push_back(
        {{"path", plan.inputs[source.input]->path().string()},
         {"tensor", source.tensor.info().name},
         {"dtype", dtype_name(source.tensor.info().dtype)}});
  };
  std::ranges::for_each(tensor.sources, add);
  std::ranges::for_each(tensor.grams, add, &GramSource::matrix);
  return sources;
}

} // namespace

std::string plan_text(const MergePlan& plan, const BufferMemory& memory) {
  const MethodInfo& method = *plan.recipe.method;
  std::string text = fmt::format(
      "{}: {}\n\n{}\n",
      method.name,
      method.text,
      format_table(describe_inputs(plan)));
  text += format_table(describe_tensors(plan)) + '\n';
  for (const TaskHead& head : plan.heads) {
    text += fmt::format("{}: {} tensors\n", head.file, head.tensors.size());
  }
  if (plan.outputs.size() > 1) {
    text += fmt::format(
        "{} models, in {}\n",
        plan.outputs.size(),
        fmt::join(plan.outputs, ", "));
  }
  for (const std::string& note : plan.notes) {
    text += fmt::format("note: {}\n", note);
  }
  const auto merged = std::ranges::count(
      plan.tensors, TensorAction::kMerge, &TensorPlan::action);
  text += fmt::format(
      "{} tensors merged, {} copied; {} to read, {} to write, {} of memory "
      "for buffers with {} threads\n",
      merged,
      plan.tensors.size() - merged,
      format_bytes(plan.bytes_read),
      format_bytes(plan.bytes_written),
      format_bytes(memory.bytes),
      memory.threads);
  return text;
}

std::string plan_json(const MergePlan& plan, const BufferMemory& memory) {
  const Recipe& recipe = plan.recipe;
  const MethodInfo& method = *recipe.method;
  ordered_json json = {
      {"recipe", recipe.source},
      {"method", method.name},
      {"formula", method.text},
      {"base", nullptr},
      {"models", ordered_json::array()},
      {"heads_mode", head_mode_name(recipe.heads)},
      {"outputs", plan.outputs},
      {"tensors", ordered_json::array()},
      {"heads", ordered_json::array()},
      {"notes", plan.notes},
      {"downloads", ordered_json::array()},
      {"bytes_read", plan.bytes_read},
      {"bytes_written", plan.bytes_written},
      {"threads", memory.threads},
      {"peak_memory", memory.bytes}};
  for (const HeaderOnly& download : downloads_of(plan)) {
    json["downloads"].push_back(
        {{"model", download.model}, {"bytes", download.bytes}});
  }
  const auto add_estimate = [](ordered_json& entry,
                               const char* key,
                               const std::optional<Estimate>& found) {
    if (found && std::isfinite(found->value)) {
      entry[key] = {
          {"value", found->value}, {"standard_error", found->standard_error}};
    }
  };
  if (plan.base) {
    json["base"] = describe_model(
        plan,
        *recipe.base_model,
        {plan.base_fisher, plan.base_num_examples},
        {plan.base_gram, plan.base_gram_num_examples});
    add_estimate(json["base"], "fisher_scale_measured", plan.base_fisher_scale);
  }
  for (const PlanSlice& slice : plan.slices) {
    for (const PlanModel& model : slice.models) {
      ordered_json entry = describe_model(
          plan,
          model.recipe.model,
          {model.fisher, model.num_examples},
          {model.gram, model.gram_num_examples});
      if (recipe.grams_of_task_vectors()) {
        entry["gram"] = kTaskVectors;
        entry["gram_num_examples"] = model.gram_num_examples;
      }
      if (model.recipe.adapter) {
        entry["adapter"] = describe_path(*model.recipe.adapter);
      }
      if (!recipe.slices.empty()) {
        entry["layer_range"] = {
            model.recipe.first_layer, model.recipe.last_layer};
      }
      entry["weight"] = describe_weight(plan, slice, model);
      add_estimate(entry, "rho_measured", model.rho);
      add_estimate(entry, "fisher_scale_measured", model.fisher_scale);
      json["models"].push_back(std::move(entry));
    }
  }
  for (const TensorPlan& tensor : plan.tensors) {
    const bool merge = tensor.action == TensorAction::kMerge;
    json["tensors"].push_back(
        {{"name", tensor.output.name},
         {"shape", tensor.output.shape},
         {"dtype", dtype_name(tensor.output.dtype)},
         {"action", merge ? "merge" : "copy"},
         {"arithmetic",
          !merge               ? ""
              : tensor.float64 ? "float64"
                               : "float32"},
         {"reason", tensor.reason},
         {"sources", describe_sources(plan, tensor)},
         {"bytes_read", tensor.bytes_read},
         {"bytes_written", plan.outputs.size() * tensor.output.bytes()}});
  }
  for (const TaskHead& head : plan.heads) {
    ordered_json names = ordered_json::array();
    for (const TensorInfo& tensor : head.tensors) {
      names.push_back(tensor.name);
    }
    json["heads"].push_back({{"file", head.file}, {"tensors", names}});
  }
  return json_text_replacing(json, 2);
}

} // namespace merganser
