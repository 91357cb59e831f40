#include "merganser/objective/refine_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/hash.h"
#include "merganser/io/safetensors.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 2; // of the saved state

Json hash_of(const std::optional<std::filesystem::path>& file) {
  return file ? Json(hash_file(*file)) : Json();
}

Json hash_tasks(const ObjectiveOptions& options) {
  Json json = Json::array();
  for (const ObjectiveTask& task : options.tasks) {
    json.push_back(
        {{"expert", Checkpoint(task.expert).content_hash()},
         {"data", hash_file(task.data)},
         {"fisher", hash_of(task.fisher)},
         {"weight", task.weight}});
  }
  return json;
}

} // namespace

std::string refine_fingerprint(const RefineOptions& options) {
  const ObjectiveOptions& objective = options.objective;
  const Json json = {
      {"format", kFormat},
      {"base", Checkpoint(objective.base).content_hash()},
      {"base-fisher", hash_of(objective.base_fisher)},
      {"model", Checkpoint(options.model).content_hash()},
      {"experts", hash_tasks(objective)},
      {"limit", objective.limit},
      {"seed", objective.seed},
      {"batch-size", objective.batch_size},
      {"max-length", objective.max_length},
      {"dtype", objective.bfloat16 ? "bfloat16" : "float32"},
      {"solver", refine_solver_name(options.solver)},
      {"targets", refine_targets_name(options.targets)},
      {"steps", options.steps_or_default()},
      {"lr", options.learning_rate},
      {"held-out", options.held_out},
      {"groups", grouping_name(options.groups)},
      {"refresh", options.refresh}};
  return json_text(json);
}

void save_refine_state(
    const std::filesystem::path& file,
    const RefineState& state,
    const std::string& fingerprint,
    const FlatArrays& arrays) {
  Json json = {
      {"kept", state.kept},
      {"seconds", state.seconds},
      {"stopped", state.stopped ? Json(*state.stopped) : Json()}};
  for (const RefineStep& step : state.steps) {
    json["steps"].push_back(to_json(step));
  }
  save_arrays(
      file, arrays, {{"state", json_text(json)}, {"fingerprint", fingerprint}});
}

RefineState load_refine_state(
    const std::filesystem::path& file,
    const std::string& fingerprint,
    const FlatArrays& arrays) {
  const SafetensorsFile in(file);
  check_same_run(in, fingerprint);
  const Json json = parse_json(in.metadata().at("state"));
  load_arrays(in, arrays);
  RefineState state;
  json.at("kept").get_to(state.kept);
  json.at("seconds").get_to(state.seconds);
  if (const Json& stopped = json.at("stopped"); !stopped.is_null()) {
    state.stopped = stopped.get<std::string>();
  }
  for (const Json& step : json.at("steps")) {
    state.steps.push_back(refine_step_from_json(step));
  }
  return state;
}

} // namespace merganser
