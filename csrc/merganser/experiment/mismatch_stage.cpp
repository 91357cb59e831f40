#include "merganser/base/json_text.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/objective/mismatch.h"

namespace merganser {

ObjectiveOptions joint_objective(const Workplace& work) {
  const Experiment& experiment = work.experiment;
  ObjectiveOptions options;
  options.base = work.in(layout::model(layout::kBase));
  options.base_fisher = work.in(layout::fisher(layout::kBase));
  for (const size_t data : experiment.experts.data) {
    const std::string& name = experiment.data[data].name;
    options.tasks.push_back(
        {.expert = work.in(layout::model(name)),
         .data = work.data[data].train,
         .fisher = work.in(layout::fisher(name))});
  }
  options.limit = experiment.fisher.limit;
  options.seed = experiment.fisher.seed;
  options.batch_size = experiment.fisher.batch_size;
  options.max_length = experiment.max_length;
  options.bfloat16 = experiment.fisher.bfloat16;
  return options;
}

Json objective_inputs(Workplace& work, const ObjectiveOptions& options) {
  Json inputs = {
      {"base", work.runner.hash(options.base)},
      {"base_fisher",
       options.base_fisher ? Json(work.runner.hash(*options.base_fisher))
                           : Json()},
      {"limit", options.limit},
      {"seed", options.seed},
      {"batch_size", options.batch_size},
      {"max_length", options.max_length},
      {"bfloat16", options.bfloat16}};
  for (const ObjectiveTask& task : options.tasks) {
    inputs["tasks"].push_back(
        {{"expert", work.runner.hash(task.expert)},
         {"data", work.runner.hash(task.data)},
         {"fisher", work.runner.hash(*task.fisher)}});
  }
  return inputs;
}

MismatchStages::MismatchStages(Workplace& work) : work_(work) {}
MismatchStages::~MismatchStages() = default;

std::string MismatchStages::measure(const ModelResult& model) {
  ObjectiveOptions options = joint_objective(work_);
  if (const int64_t limit = work_.experiment.mismatch_limit; limit > 0) {
    options.limit = limit;
  }
  const std::filesystem::path folder = work_.in(model.path.string());
  const auto role = model.kind == "target" ? MismatchMeter::Role::kTarget
                                           : MismatchMeter::Role::kCandidate;
  Json inputs = objective_inputs(work_, options);
  inputs["model"] = work_.runner.hash(folder);
  const std::filesystem::path file = work_.in(layout::mismatch(model.name));
  work_.runner.run(
      {.name = "mismatch " + model.name,
       .unit = "examples",
       .inputs = inputs,
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         if (!meter_) {
           meter_ = std::make_unique<MismatchMeter>(
               options,
               Grouping::kBlock,
               std::vector<std::filesystem::path>{folder},
               progress);
         }
         const Json json = mismatch_to_json(
             meter_->measure(folder, role, progress), expert_names());
         std::filesystem::create_directories(file.parent_path());
         write_file(file, json_text(json, 1) + "\n");
       }});
  return read_file(file);
}

std::vector<std::string> MismatchStages::expert_names() const {
  std::vector<std::string> names;
  for (const size_t data : work_.experiment.experts.data) {
    names.push_back(work_.experiment.data[data].name);
  }
  return names;
}

} // namespace merganser
