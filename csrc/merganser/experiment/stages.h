#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "merganser/base/progress.h"
#include "merganser/experiment/results.h"
#include "merganser/experiment/settings.h"
#include "merganser/experiment/stage_runner.h"
#include "merganser/objective/objective_options.h"

// The kinds of stages of an experiment. A new kind is a function here and a
// file next to the others.
namespace merganser {

class MismatchMeter;

// The examples of a data set that an experiment uses.
struct DataFiles {
  std::filesystem::path train;
  std::filesystem::path validation; // empty: none
  std::filesystem::path test;
};

struct Workplace {
  const Experiment& experiment;
  StageRunner& runner;
  std::filesystem::path folder;
  std::vector<DataFiles> data = {}; // in the order of experiment.data

  std::filesystem::path in(const std::string& path) const {
    return folder / path;
  }
};

// Writes data/SET/{train,validation,test}.jsonl where the experiment uses only
// some examples of a file; otherwise uses the file itself.
DataFiles sample_data(Workplace& work, const ExperimentData& data);

// Reads all data before any training, so that a bad line in the last file is
// found at once. Returns the share of the most frequent label in each test set.
std::vector<double> check_data(Workplace& work);

// Start of a training: a model directory and, for a proximal term, the model's
// Fisher.
struct Start {
  std::filesystem::path model;
  std::filesystem::path fisher;
};

Start start_from_base(const Workplace& work);

// Trains models/NAME on the given sets.
void train_model(
    Workplace& work,
    const std::string& name,
    const Start& from,
    const ExperimentTraining& training,
    const std::vector<size_t>& data);

// Estimates fishers/NAME of a model on the training data of some sets, with
// `limit` examples per set on average. `path` is the model's directory.
void estimate_model_fisher(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data);

// The same for the expert of one set; if a merge uses it, also measures the
// expert's gradient along its task vector.
void estimate_expert_fisher(Workplace& work, size_t data);

// Estimates the subspace Fisher of base and experts, on the examples of their
// Fishers, if a merge uses it.
void estimate_subspace(Workplace& work);

// Collects grams/NAME of a model on the examples of its Fisher.
void estimate_model_gram(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data);

// Calibrates the Fishers of base and experts whose scales a merge uses, along
// the path to the plain average of all experts, with the examples of the
// Fishers.
void calibrate_fishers(Workplace& work);

// The recipe with the paths of this experiment.
Recipe resolve_recipe(
    const Workplace& work,
    const std::string& name,
    const Recipe& recipe);

// Inputs of a stage that merges by a resolved recipe.
Json merge_inputs(Workplace& work, const Recipe& recipe);

// Writes merges/NAME/recipe.yaml and merges/NAME/model.
void merge_experts(
    Workplace& work,
    const std::string& name,
    const Recipe& recipe);

// Merges with each value of a sweep and evaluates on the validation parts.
SweepResults run_sweep(Workplace& work, const ExperimentMerge& merge);

// Inputs of a stage that evaluates a model on one part of all data sets.
// `model`: the model's hash, or the inputs that determine it.
Json evaluation_inputs(
    Workplace& work,
    const Json& model,
    std::filesystem::path DataFiles::*part);

// Results by set from a file of an evaluation or a sweep.
std::vector<EvalResult> read_results(
    const Workplace& work,
    const std::filesystem::path& file);

// Evaluates a model on every test set. `path` is its directory.
ModelResult evaluate_model(
    Workplace& work,
    const std::string& name,
    const std::string& kind,
    const std::string& path);

// Takes a set out of a model in the ways that `removal` lists, and compares the
// results with the target retrained without the set.
RemovalResults remove_data(
    Workplace& work,
    const ExperimentRemoval& removal,
    const ModelResult& from);

// The experts' joint objective, by default on the examples of their Fishers.
ObjectiveOptions joint_objective(const Workplace& work);

// Inputs of a stage that uses it.
Json objective_inputs(Workplace& work, const ObjectiveOptions& options);

// Writes refinements/NAME. Returns its refine.json.
std::string refine_model(
    Workplace& work,
    const ExperimentRefinement& refinement);

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
