#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/experiment/data_settings.h"
#include "merganser/experiment/merge_settings.h"
#include "merganser/fisher/fisher_options.h"
#include "merganser/objective/refine_options.h"
#include "merganser/train/train_options.h"

namespace merganser {

// Training of one or more models.
struct ExperimentTraining {
  std::vector<size_t> data; // positions in Experiment::data
  TrainOptions options; // without paths
  // Weight of 1/2 |theta - theta_0|^2 in the norm of the base's H_0. 0: none.
  double proximal = 0;
};

// A further joint training.
struct ExperimentTarget {
  std::string name;
  ExperimentTraining training;
};

// Steps from a model towards the minimum of the joint objective.
struct ExperimentRefinement {
  std::string name;
  std::string from; // path of the model in the experiment's directory
  RefineOptions options; // without paths
  // The base's data are a task, with the base as its expert; otherwise the
  // base's diagonal Fisher stands for them.
  bool base_data = true;
};

// One data set taken out of a model.
struct ExperimentRemoval {
  size_t data = 0; // position in Experiment::data
  std::string from; // layout::kTarget or the name of a merge
  std::vector<size_t> seen; // sets that `from` was trained on
  ExperimentTraining expert; // from `from`, on the set
  ExperimentTraining retrained; // as the target, without the set
  std::vector<ExperimentMerge> merges; // of `from` and the expert

  std::string model() const; // path of `from` in the experiment's directory
};

// A parsed experiment; docs/experiments.md has the keys. Paths are resolved
// against the file's directory.
struct MERGANSER_API Experiment {
  std::filesystem::path encoder; // model directory that the base starts from
  int64_t max_length = 128;
  uint64_t seed = 0; // of all stages
  std::vector<Experiment> seeds; // one per seed; empty: this one alone
  bool bfloat16 = false; // autocast in training and evaluation
  int64_t eval_batch_size = 64;
  std::vector<ExperimentData> data;
  // Part of each training file that trainings and Fishers do not see: below 1 a
  // share, otherwise a number of examples.
  double validation = 0;
  ExperimentTraining base; // on one data set
  ExperimentTraining experts; // from the base, one model per data set
  std::optional<ExperimentTraining> target; // from the base, one model on all
  std::vector<ExperimentTarget> targets; // further ones
  FisherOptions fisher;
  std::vector<ExperimentMerge> merges;
  // Measures the gradient mismatch of target and merges, on at most `limit`
  // examples of each expert (-1: those of the experts' Fishers).
  bool mismatch = false;
  int64_t mismatch_limit = -1;
  std::vector<ExperimentRefinement> refinements;
  std::optional<ExperimentRemoval> removal;
  std::string output; // name of the merge that is the result
  std::string text; // of the file, with the assignments

  // `assignments` replace values of the file, see YamlValue::with. Throws
  // InputError with file, line and column for an unknown key, a wrong type, a
  // value out of range or a missing file.
  static Experiment load(
      const std::filesystem::path& path,
      const std::vector<std::string>& assignments = {});

  // The position in `data` of the set that `name` names. Throws InputError at
  // its place for an unknown one.
  size_t find_data(const YamlValue& name) const;
  // Names of base, targets, experts, merges and refined models: rows of the
  // results.
  std::set<std::string> model_names() const;
  // Path of such a model in the experiment's directory.
  std::string model_path(const std::string& name) const;
};

} // namespace merganser
