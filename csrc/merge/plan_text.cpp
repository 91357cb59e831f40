// A plan for people and for machines.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/parallel.h"
#include "merge/plan.h"
#include "merge/table.h"

namespace merganser {
namespace {

using nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

Rows describe_inputs(const MergePlan& plan) {
  const Recipe& recipe = plan.recipe;
  Rows rows = {{"", "weight", "model", "examples", "Fisher"}};
  const auto add = [&](std::string role,
                       std::string weight,
                       const std::filesystem::path& model,
                       const Checkpoint* fisher,
                       double examples) {
    rows.push_back({std::move(role), std::move(weight), model.string()});
    if (fisher != nullptr) {
      rows.back().push_back(
          method_info(recipe.method).needs_num_examples
              ? fmt::format("{}", examples)
              : "");
      rows.back().push_back(fisher->path().string());
    }
  };
  if (plan.base) {
    add("base",
        "",
        *recipe.base_model,
        plan.base_fisher ? &*plan.base_fisher : nullptr,
        plan.base_scale);
  }
  for (size_t t = 0; t < plan.models.size(); ++t) {
    const bool has_fisher = !plan.fishers.empty();
    add(fmt::format("model {}", t + 1),
        fmt::format("{:.6g}", plan.weights[t]),
        recipe.models[t].model,
        has_fisher ? &plan.fishers[t] : nullptr,
        has_fisher ? plan.scales[t] : 0);
  }
  return rows;
}

Rows describe_tensors(const MergePlan& plan) {
  Rows rows = {{"tensor", "shape", "type", "action", "read"}};
  for (const TensorPlan& row : plan.tensors) {
    rows.push_back(
        {row.output.name,
         row.output.shape_text(),
         std::string(dtype_name(row.output.dtype)),
         row.action == TensorAction::kMerge ? "merge" : "copy " + row.reason,
         format_bytes(row.bytes_read)});
  }
  return rows;
}

ordered_json describe_model(
    const std::filesystem::path& model,
    const Checkpoint* fisher,
    double num_examples) {
  ordered_json entry = {{"model", model.string()}};
  if (fisher != nullptr) {
    entry["fisher"] = fisher->path().string();
    entry["num_examples"] = num_examples;
  }
  return entry;
}

} // namespace

std::string MergePlan::to_text(int threads) const {
  const MethodInfo& method = method_info(recipe.method);
  std::string text = fmt::format(
      "{}: {}\n\n{}\n",
      method.name,
      method.formula,
      format_table(describe_inputs(*this)));
  text += format_table(describe_tensors(*this)) + '\n';
  for (const TaskHead& head : heads) {
    text += fmt::format("{}: {} tensors\n", head.file, head.tensors.size());
  }
  for (const std::string& note : notes) {
    text += fmt::format("note: {}\n", note);
  }
  const auto merged =
      std::ranges::count(tensors, TensorAction::kMerge, &TensorPlan::action);
  text += fmt::format(
      "{} tensors merged, {} copied; {} to read, {} to write, {} of memory "
      "for buffers with {} threads\n",
      merged,
      tensors.size() - merged,
      format_bytes(bytes_read),
      format_bytes(bytes_written),
      format_bytes(peak_memory(threads)),
      thread_count(threads));
  return text;
}

std::string MergePlan::to_json(int threads) const {
  const MethodInfo& method = method_info(recipe.method);
  ordered_json json = {
      {"recipe", recipe.source},
      {"method", method.name},
      {"formula", method.formula},
      {"base", nullptr},
      {"models", ordered_json::array()},
      {"heads_mode", head_mode_name(recipe.heads)},
      {"tensors", ordered_json::array()},
      {"heads", ordered_json::array()},
      {"notes", notes},
      {"bytes_read", bytes_read},
      {"bytes_written", bytes_written},
      {"threads", thread_count(threads)},
      {"peak_memory", peak_memory(threads)}};
  if (base) {
    json["base"] = describe_model(
        *recipe.base_model, base_fisher ? &*base_fisher : nullptr, base_scale);
  }
  for (size_t t = 0; t < models.size(); ++t) {
    const bool has_fisher = !fishers.empty();
    json["models"].push_back(describe_model(
        recipe.models[t].model,
        has_fisher ? &fishers[t] : nullptr,
        has_fisher ? scales[t] : 0));
    json["models"].back()["weight"] = weights[t];
  }
  for (const TensorPlan& row : tensors) {
    const bool merge = row.action == TensorAction::kMerge;
    json["tensors"].push_back(
        {{"name", row.output.name},
         {"shape", row.output.shape},
         {"dtype", dtype_name(row.output.dtype)},
         {"action", merge ? "merge" : "copy"},
         {"arithmetic",
          !merge            ? ""
              : row.float64 ? "float64"
                            : "float32"},
         {"reason", row.reason},
         {"bytes_read", row.bytes_read},
         {"bytes_written", row.output.bytes()}});
  }
  for (const TaskHead& head : heads) {
    ordered_json names = ordered_json::array();
    for (const TensorInfo& tensor : head.tensors) {
      names.push_back(tensor.name);
    }
    json["heads"].push_back({{"file", head.file}, {"tensors", names}});
  }
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

} // namespace merganser
