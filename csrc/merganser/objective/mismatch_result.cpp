#include "merganser/objective/mismatch_result.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::string>;

Json optional_to_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json();
}

Json norms_to_json(const std::optional<VectorNorms>& norms) {
  if (!norms) {
    return {};
  }
  return {
      {"norm", norms->two},
      {"h0_inverse_norm", optional_to_json(norms->inverse_h0)}};
}

Json norms_to_json(const MismatchNorms& norms) {
  return {
      {"mismatch", norms_to_json(std::optional(norms.mismatch))},
      {"explained", norms_to_json(norms.explained)},
      {"rest", norms_to_json(norms.rest)},
      {"share_without_h0", optional_to_json(norms.share_without_h0)}};
}

Json row_to_json(const MismatchRow& row) {
  Json json = norms_to_json(row.all);
  for (const auto& [name, norms] : row.groups) {
    json["groups"][name] = norms_to_json(norms);
  }
  return json;
}

std::string number(double value) {
  return fmt::format("{:.4g}", value);
}

// The columns of a row, with a title for each.
struct Columns {
  bool fishers;
  bool h0;

  Cells titles() const {
    Cells cells = {"model", "task", "group", "|m|"};
    append(cells, fishers, {"explained", "rest"});
    append(cells, h0, {"|m| in 1/H0"});
    append(cells, h0 && fishers, {"explained in 1/H0", "rest in 1/H0"});
    return cells;
  }

  Cells row(Cells cells, const MismatchNorms& norms) const {
    cells.push_back(number(norms.mismatch.two));
    if (fishers) {
      append(
          cells, true, {number(norms.explained->two), number(norms.rest->two)});
    }
    if (h0) {
      cells.push_back(number(*norms.mismatch.inverse_h0));
    }
    if (h0 && fishers) {
      append(
          cells,
          true,
          {number(*norms.explained->inverse_h0),
           number(*norms.rest->inverse_h0)});
    }
    return cells;
  }

 private:
  static void append(Cells& cells, bool wanted, const Cells& more) {
    if (wanted) {
      cells.insert(cells.end(), more.begin(), more.end());
    }
  }
};

// Removes the column of groups if every cell in it is empty.
void drop_groups(std::vector<Cells>& rows) {
  constexpr size_t kGroup = 2;
  for (size_t i = 1; i < rows.size(); ++i) {
    if (!rows[i][kGroup].empty()) {
      return;
    }
  }
  for (Cells& row : rows) {
    row.erase(row.begin() + kGroup);
  }
}

std::vector<std::string> task_names(const ObjectiveOptions& options) {
  std::vector<std::string> names;
  for (const ObjectiveTask& task : options.tasks) {
    names.push_back(task.expert.string());
  }
  return names;
}

void add_row(
    std::vector<Cells>& rows,
    const Columns& columns,
    const std::string& model,
    const std::string& task,
    const MismatchRow& row) {
  rows.push_back(columns.row({model, task, ""}, row.all));
  for (const auto& [name, norms] : row.groups) {
    rows.push_back(columns.row({"", "", name}, norms));
  }
}

std::string identity_text(const ModelMismatch& target) {
  const TargetIdentity& identity = *target.identity;
  return fmt::format(
      "\nTarget {}, where H0 > 0: |theta* - theta_TA| = {}, "
      "|m(theta*) / H0| = {}; of the difference of both sides {}, "
      "cosine {:.4f}\n",
      target.model.string(),
      number(identity.left),
      number(identity.right),
      number(identity.difference),
      identity.cosine);
}

} // namespace

nlohmann::ordered_json mismatch_to_json(
    const ModelMismatch& mismatch,
    const std::vector<std::string>& tasks) {
  Json json = {{"model", mismatch.model.string()}};
  json["total"] = row_to_json(mismatch.total);
  for (size_t t = 0; t < tasks.size(); ++t) {
    Json row = {{"task", tasks[t]}};
    row.update(row_to_json(mismatch.tasks[t]));
    json["tasks"].push_back(row);
  }
  if (mismatch.identity) {
    const TargetIdentity& identity = *mismatch.identity;
    json["target_identity"] = {
        {"left_norm", identity.left},
        {"right_norm", identity.right},
        {"difference_norm", identity.difference},
        {"cosine", identity.cosine}};
  }
  return json;
}

std::string MismatchResult::to_text() const {
  const MismatchNorms& first = models.front().total.all;
  const Columns columns{
      .fishers = first.explained.has_value(),
      .h0 = first.mismatch.inverse_h0.has_value()};
  const std::vector<std::string> names = task_names(options);
  std::vector<Cells> rows = {columns.titles()};
  for (const ModelMismatch& model : models) {
    add_row(rows, columns, model.model.string(), "all", model.total);
    for (size_t t = 0; t < names.size(); ++t) {
      add_row(rows, columns, "", names[t], model.tasks[t]);
    }
  }
  drop_groups(rows);
  std::string text = format_table(rows);
  if (without_h0) {
    text += fmt::format(
        "\nH0 = 0 for {} of {} parameters, which norms in 1/H0 leave out.\n",
        *without_h0,
        parameters);
  } else {
    text += "\nNo Fisher of the base: no norms in 1/H0.\n";
  }
  for (const ModelMismatch& model : models) {
    text += model.identity ? identity_text(model) : "";
  }
  return text;
}

std::string MismatchResult::to_json() const {
  const auto path_to_json = [](const auto& path) {
    return path ? Json(path->string()) : Json();
  };
  Json json = {
      {"base", options.base.string()},
      {"base_fisher", path_to_json(options.base_fisher)},
      {"parameters", parameters},
      {"parameters_without_h0", without_h0 ? Json(*without_h0) : Json()}};
  for (size_t t = 0; t < options.tasks.size(); ++t) {
    const ObjectiveTask& task = options.tasks[t];
    json["tasks"].push_back(
        {{"expert", task.expert.string()},
         {"data", task.data.string()},
         {"fisher", path_to_json(task.fisher)},
         {"weight", task.weight},
         {"num_examples", num_examples[t]},
         {"num_examples_used", num_examples_used[t]}});
  }
  for (const ModelMismatch& model : models) {
    json["models"].push_back(mismatch_to_json(model, task_names(options)));
  }
  return json_text(json, 2);
}

} // namespace merganser
