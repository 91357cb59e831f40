#include <algorithm>
#include <cstdint>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/train/task.h"

namespace merganser {

void estimate_model_fisher(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data) {
  namespace fs = std::filesystem;
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
  work.runner.run(
      {.name = "fisher " + name,
       .unit = "examples",
       .inputs =
           {{"model", work.runner.hash(model)},
            {"data", hashes},
            {"max_length", work.experiment.max_length},
            {"estimator", estimator_name(options.estimator)},
            {"samples", options.samples},
            {"limit", options.limit},
            {"seed", options.seed},
            {"batch_size", options.batch_size},
            {"bfloat16", options.bfloat16}},
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
         fs::create_directories(file.parent_path());
         fisher.save(file);
       }});
}

} // namespace merganser
