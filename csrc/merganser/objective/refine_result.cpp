#include "merganser/objective/refine_result.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/base/version.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

const char* setting_name(RefineSolver solver) {
  return solver == RefineSolver::kAdamW ? "lr" : "damping";
}

Json path_to_json(const std::optional<std::filesystem::path>& path) {
  return path ? Json(path->string()) : Json();
}

// JSON has no NaN and no infinity: they are null.
double number_from_json(const Json& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN()
                        : json.get<double>();
}

Json tasks_to_json(const RefineResult& result) {
  Json json = Json::array();
  const auto& tasks = result.options.objective.tasks;
  for (size_t t = 0; t < tasks.size(); ++t) {
    json.push_back(
        {{"expert", tasks[t].expert.string()},
         {"data", tasks[t].data.string()},
         {"fisher", path_to_json(tasks[t].fisher)},
         {"weight", tasks[t].weight},
         {"num_examples", result.num_examples[t]},
         {"num_examples_used", result.num_examples_used[t]},
         {"num_examples_held_out", result.num_examples_held_out[t]}});
  }
  return json;
}

} // namespace

nlohmann::ordered_json to_json(const RefineStep& step) {
  return {
      {"step", step.step},
      {"objective", step.objective},
      {"held_out", step.held_out},
      {"held_out_loss", step.held_out_loss},
      {"setting", step.setting},
      {"rejected", step.rejected},
      {"not_finite", step.not_finite}};
}

RefineStep refine_step_from_json(const nlohmann::ordered_json& json) {
  RefineStep step;
  json.at("step").get_to(step.step);
  step.objective = number_from_json(json.at("objective"));
  step.held_out = number_from_json(json.at("held_out"));
  step.held_out_loss = number_from_json(json.at("held_out_loss"));
  json.at("setting").get_to(step.setting);
  json.at("rejected").get_to(step.rejected);
  json.at("not_finite").get_to(step.not_finite);
  return step;
}

std::string RefineResult::to_text() const {
  std::vector<std::vector<std::string>> rows = {
      {"step",
       "objective",
       "held out",
       "held-out loss",
       setting_name(options.solver),
       "rejected",
       "not finite",
       ""}};
  int64_t not_finite = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const RefineStep& step = steps[i];
    not_finite += step.not_finite;
    rows.push_back(
        {std::to_string(step.step),
         fmt::format("{:.5f}", step.objective),
         fmt::format("{:.5f}", step.held_out),
         fmt::format("{:.5f}", step.held_out_loss),
         fmt::format("{:.3g}", step.setting),
         std::to_string(step.rejected),
         std::to_string(step.not_finite),
         i == kept ? "kept" : ""});
  }
  return format_table(rows) +
      fmt::format(
             "\n{}: step {} of {}, {:.1f} s{}{}\n",
             options.out.string(),
             steps[kept].step,
             steps.back().step,
             seconds,
             (stopped ? "; stopped: " + *stopped : "") +
                 (not_finite == 0
                      ? ""
                      : fmt::format(
                            "; steps rejected as not finite: {}", not_finite)),
             options.objective.base_fisher
                 ? ""
                 : "; no Fisher of the base: no proximal term");
}

std::string RefineResult::to_json() const {
  const ObjectiveOptions& objective = options.objective;
  Json json = {
      {"merganser", version()},
      {"out", options.out.string()},
      {"model", options.model.string()},
      {"base", objective.base.string()},
      {"base_fisher", path_to_json(objective.base_fisher)},
      {"solver", refine_solver_name(options.solver)},
      {"targets", refine_targets_name(options.targets)},
      {"groups", grouping_name(options.groups)},
      {"setting", setting_name(options.solver)},
      {"tasks", tasks_to_json(*this)},
      {"steps", Json::array()}};
  for (const RefineStep& step : steps) {
    json["steps"].push_back(merganser::to_json(step));
  }
  json["kept_step"] = steps[kept].step;
  json["completed"] = completed;
  json["stopped"] = stopped ? Json(*stopped) : Json();
  json["seconds"] = seconds;
  return json_text(json, 2);
}

} // namespace merganser
