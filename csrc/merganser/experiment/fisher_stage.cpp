#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"

namespace merganser {

void estimate_model_fisher(
    Workplace& work,
    const std::string& name,
    size_t data) {
  namespace fs = std::filesystem;
  const fs::path model = work.in(layout::model(name));
  const fs::path& examples = work.experiment.data[data].train;
  const fs::path file = work.in(layout::fisher(name));
  const FisherOptions& options = work.experiment.fisher;
  work.runner.run(
      {.name = "fisher " + name,
       .unit = "examples",
       .inputs =
           {{"model", work.runner.hash(model)},
            {"data", work.runner.hash(examples)},
            {"max_length", work.experiment.max_length},
            {"estimator", estimator_name(options.estimator)},
            {"samples", options.samples},
            {"limit", options.limit},
            {"seed", options.seed},
            {"batch_size", options.batch_size},
            {"bfloat16", options.bfloat16}},
       .output = file,
       .work = [&](const ProgressCallback& progress) {
         Classifier classifier(model);
         FisherResult fisher = estimate_fisher(
             classifier.encoder,
             classifier.load(examples, work.experiment.max_length),
             classifier.tokenizer->pad_id(),
             options,
             progress);
         fisher.model_hash = Checkpoint(model).content_hash();
         fs::create_directories(file.parent_path());
         fisher.save(file);
       }});
}

} // namespace merganser
