#include "merganser/experiment/set_predictions.h"

#include "merganser/eval/predict.h"
#include "merganser/model/classifier.h"

namespace merganser {

std::vector<SetPredictions> predict_sets(
    const Workplace& work,
    std::filesystem::path DataFiles::*part,
    const std::filesystem::path& model,
    const ProgressCallback& progress) {
  const Experiment& experiment = work.experiment;
  Classifier classifier(model);
  std::vector<Dataset> sets;
  int64_t total = 0;
  for (const DataFiles& files : work.data) {
    sets.push_back(classifier.load(files.*part, experiment.max_length));
    total += sets.back().size();
  }
  int64_t before = 0;
  std::vector<SetPredictions> predictions;
  for (const Dataset& set : sets) {
    const at::Tensor log_probabilities = predict(
        classifier.encoder,
        set,
        classifier.tokenizer->pad_id(),
        experiment.eval_batch_size,
        experiment.bfloat16,
        [&](int64_t done, int64_t, const std::string& text) {
          progress(before + done, total, text);
        });
    predictions.push_back({log_probabilities, set.labels});
    before += set.size();
  }
  return predictions;
}

} // namespace merganser
