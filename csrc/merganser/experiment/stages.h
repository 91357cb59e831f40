#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "merganser/experiment/results.h"
#include "merganser/experiment/settings.h"
#include "merganser/experiment/stage_runner.h"

// The kinds of stages of an experiment. A new kind is a function here and a
// file next to the others.
namespace merganser {

class MismatchMeter;

struct Workplace {
  const Experiment& experiment;
  StageRunner& runner;
  std::filesystem::path folder;

  std::filesystem::path in(const std::string& path) const {
    return folder / path;
  }
};

// Reads all data before any training, so that a bad line in the last file is
// found at once. Returns the share of the most frequent label in each test set.
std::vector<double> check_data(Workplace& work);

// Trains models/NAME from the model directory `from` on the given sets.
void train_model(
    Workplace& work,
    const std::string& name,
    const std::filesystem::path& from,
    const ExperimentTraining& training,
    const std::vector<size_t>& data);

// Estimates fishers/NAME of models/NAME on a set's training data.
void estimate_model_fisher(
    Workplace& work,
    const std::string& name,
    size_t data);

// Writes merges/NAME/recipe.yaml and merges/NAME/model.
void merge_experts(Workplace& work, const ExperimentMerge& merge);

// Evaluates a model on every test set. `path` is its directory.
ModelResult evaluate_model(
    Workplace& work,
    const std::string& name,
    const std::string& kind,
    const std::string& path);

// Measures the gradient mismatch of models; the experts' gradients are computed
// once, for the first model whose stage runs.
class MismatchStages {
 public:
  explicit MismatchStages(Workplace& work);
  ~MismatchStages();

  // The JSON of one model's mismatch; the target's includes its identity.
  std::string measure(const ModelResult& model);

 private:
  std::vector<std::string> expert_names() const;

  Workplace& work_;
  std::unique_ptr<MismatchMeter> meter_;
};

} // namespace merganser
