#include "merganser/base/json_text.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/train/fingerprint.h"
#include "merganser/train/trainer.h"

namespace merganser {
namespace {

// A killed run loses little, and writing checkpoints costs little.
constexpr int64_t kCheckpointSteps = 200;

} // namespace

void train_model(
    Workplace& work,
    const std::string& name,
    const std::filesystem::path& from,
    const ExperimentTraining& training,
    const std::vector<size_t>& data) {
  TrainOptions options = training.options;
  options.model = from;
  for (const size_t i : data) {
    options.train.push_back(work.experiment.data[i].train);
  }
  if (training.proximal > 0) {
    options.proximal = {work.in(layout::fisher(layout::kBase))};
    options.proximal_weight = training.proximal;
  }
  options.out = work.in(layout::model(name));
  options.checkpoint_steps = kCheckpointSteps;
  work.runner.run(
      {.name = "train " + name,
       .unit = "examples",
       .inputs = parse_json(fingerprint(options, work.runner.hash(from))),
       .output = options.out,
       .work = [&](const ProgressCallback& progress) {
         train(options, progress);
       }});
}

} // namespace merganser
