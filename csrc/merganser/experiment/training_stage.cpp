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

Start start_from_base(const Workplace& work) {
  return {
      work.in(layout::model(layout::kBase)),
      work.in(layout::fisher(layout::kBase))};
}

void train_model(
    Workplace& work,
    const std::string& name,
    const Start& from,
    const ExperimentTraining& training,
    const std::vector<size_t>& data) {
  TrainOptions options = training.options;
  options.model = from.model;
  for (const size_t i : data) {
    options.train.push_back(work.data[i].train);
  }
  if (training.proximal > 0) {
    options.proximal = {from.fisher};
    options.proximal_weight = training.proximal;
  }
  options.out = work.in(layout::model(name));
  options.checkpoint_steps = kCheckpointSteps;
  work.runner.run(
      {.name = "train " + name,
       .unit = "examples",
       .inputs = parse_json(fingerprint(options, work.runner.hash(from.model))),
       .outputs = {options.out},
       .work = [&](const ProgressCallback& progress) {
         train(options, progress);
       }});
}

} // namespace merganser
