#include <algorithm>
#include <cstdint>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/objective/task_vector_statistics.h"
#include "merganser/train/task.h"

namespace merganser {

namespace {

namespace fs = std::filesystem;

// Measures along the task vector from the base, which has one data set.
TaskVectorStatistics measure_along(
    const Workplace& work,
    const fs::path& expert,
    const fs::path& data,
    const FisherOptions& fisher) {
  return measure_task_vector(
      {.base = work.in(layout::model(layout::kBase)),
       .base_data = work.data[work.experiment.base.data.front()].train,
       .expert = expert,
       .data = data,
       .limit = fisher.limit,
       .seed = fisher.seed,
       .batch_size = fisher.batch_size,
       .max_length = work.experiment.max_length,
       .bfloat16 = fisher.bfloat16});
}

void estimate(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data,
    bool along_task_vector) {
  const fs::path model = work.in(path);
  std::vector<fs::path> files;
  Json hashes = Json::array();
  for (const size_t i : data) {
    files.push_back(work.data[i].train);
    hashes.push_back(work.runner.hash(files.back()));
  }
  const fs::path file = work.in(layout::fisher(name));
  FisherOptions options = work.experiment.fisher;
  if (options.limit > 0) {
    const int64_t sets = std::ssize(data);
    options.limit = std::min(options.limit, INT64_MAX / sets) * sets;
  }
  Json inputs = {
      {"model", work.runner.hash(model)},
      {"data", hashes},
      {"max_length", work.experiment.max_length},
      {"estimator", estimator_name(options.estimator)},
      {"samples", options.samples},
      {"limit", options.limit},
      {"seed", options.seed},
      {"batch_size", options.batch_size},
      {"bfloat16", options.bfloat16}};
  if (along_task_vector) {
    const size_t base_data = work.experiment.base.data.front();
    inputs["base"] = work.runner.hash(work.in(layout::model(layout::kBase)));
    inputs["base_data"] = work.runner.hash(work.data[base_data].train);
  }
  work.runner.run(
      {.name = "fisher " + name,
       .unit = "examples",
       .inputs = inputs,
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         Classifier classifier(model);
         Dataset examples;
         for (const fs::path& part : files) {
           append(examples, classifier.load(part, work.experiment.max_length));
         }
         FisherResult fisher = estimate_fisher(
             classifier.encoder,
             examples,
             classifier.tokenizer->pad_id(),
             options,
             progress);
         fisher.model_hash = Checkpoint(model).content_hash();
         if (along_task_vector) {
           fisher.task_vector =
               measure_along(work, model, files.front(), options);
         }
         fs::create_directories(file.parent_path());
         fisher.save(file);
       }});
}

// True if a merge of the experts has the parameter rho.
bool uses_rho(const Experiment& experiment) {
  return std::ranges::any_of(experiment.merges, [](const auto& merge) {
    return merge.recipe.method->find_parameter("rho") != nullptr;
  });
}

} // namespace

void estimate_model_fisher(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data) {
  estimate(work, name, path, data, /*along_task_vector=*/false);
}

void estimate_expert_fisher(Workplace& work, size_t data) {
  const std::string& name = work.experiment.data[data].name;
  estimate(
      work,
      name,
      layout::model(name),
      {data},
      /*along_task_vector=*/uses_rho(work.experiment));
}

} // namespace merganser
