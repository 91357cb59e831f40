#include <algorithm>
#include <cstdint>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/fisher/estimate_on_files.h"
#include "merganser/fisher/fisher.h"
#include "merganser/fisher/gram.h"
#include "merganser/objective/task_vector_statistics.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// A model and the training data on which something is estimated.
class Estimation {
 public:
  Estimation(
      Workplace& work,
      const std::string& path,
      const std::vector<size_t>& data)
      : model_(work.in(path)), max_length_(work.experiment.max_length) {
    Json hashes = Json::array();
    for (const size_t i : data) {
      files_.push_back(work.data[i].train);
      hashes.push_back(work.runner.hash(files_.back()));
    }
    inputs_ = {
        {"model", work.runner.hash(model_)},
        {"data", hashes},
        {"max_length", max_length_}};
  }

  // Inputs of the stage; `options` are further ones.
  Json inputs(const Json& options) const {
    Json all = inputs_;
    all.update(options);
    return all;
  }

  // The examples of all sets, `limit` per set.
  int64_t limit_of_all(int64_t limit) const {
    const int64_t sets = std::ssize(files_);
    return limit > 0 ? std::min(limit, INT64_MAX / sets) * sets : limit;
  }

  template <typename Estimate, typename Options>
  auto run(
      const Estimate& estimate,
      const Options& options,
      const ProgressCallback& progress) const {
    return estimate_on_files(
        model_, files_, max_length_, estimate, options, progress);
  }

 private:
  fs::path model_;
  int64_t max_length_;
  std::vector<fs::path> files_;
  Json inputs_;
};

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
  const Estimation estimation(work, path, data);
  const fs::path file = work.in(layout::fisher(name));
  FisherOptions options = work.experiment.fisher;
  options.limit = estimation.limit_of_all(options.limit);
  Json inputs = estimation.inputs(
      {{"estimator", estimator_name(options.estimator)},
       {"samples", options.samples},
       {"limit", options.limit},
       {"seed", options.seed},
       {"batch_size", options.batch_size},
       {"bfloat16", options.bfloat16}});
  if (options.storage != FisherStorage::kFloat32) {
    inputs["storage"] = storage_name(options.storage);
  }
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
         FisherResult fisher =
             estimation.run(estimate_fisher, options, progress);
         if (along_task_vector) {
           fisher.task_vector = measure_along(
               work, work.in(path), work.data[data.front()].train, options);
         }
         fs::create_directories(file.parent_path());
         fisher.save(file);
       }});
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
      /*along_task_vector=*/
      std::ranges::any_of(work.experiment.merges, [](const auto& merge) {
        return uses_rho(merge.recipe);
      }));
}

void estimate_model_gram(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data) {
  const Estimation estimation(work, path, data);
  const fs::path file = work.in(layout::gram(name));
  const FisherOptions& fisher = work.experiment.fisher;
  const GramOptions options{
      .limit = estimation.limit_of_all(fisher.limit),
      .seed = fisher.seed,
      .batch_size = fisher.batch_size,
      .bfloat16 = fisher.bfloat16};
  work.runner.run(
      {.name = "gram " + name,
       .unit = "examples",
       .inputs = estimation.inputs(
           {{"limit", options.limit},
            {"seed", options.seed},
            {"batch_size", options.batch_size},
            {"bfloat16", options.bfloat16}}),
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         const GramResult gram =
             estimation.run(estimate_gram, options, progress);
         fs::create_directories(file.parent_path());
         gram.save(file);
       }});
}

} // namespace merganser
