#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/eval/eval_result.h"
#include "merganser/experiment/events.h"

namespace merganser {

// Averages over all test sets or validation parts.
struct Averages {
  double accuracy = 0; // every set counts the same
  double loss = 0;
  double accuracy_over_examples = 0; // every example counts the same
  double calibration_error = 0;
};

Averages average_over_sets(const std::vector<EvalResult>& sets);

// Cost of a merge in addition to its models.
struct MergeCost {
  // Examples of the training data, for statistics, and of validation parts, for
  // a sweep; each counts once.
  int64_t examples = 0;
  double seconds = 0; // of its statistics, directions, sweep and itself
  uint64_t bytes = 0; // of the files of statistics
};

// A model's results on every test set.
struct ModelResult {
  std::string name;
  std::string kind; // "base", "expert", "target", "merge", "refined"
  std::filesystem::path path; // relative to the experiment's directory
  std::vector<EvalResult> sets; // in the order of ExperimentResults::sets
  std::string mismatch = {}; // JSON; empty: not measured
  std::string method = {}; // of a merge
  std::vector<std::string> experts = {}; // in a merge
  std::optional<MergeCost> cost = {}; // of a merge
};

// Denominators that a merge by the removal rule reports.
struct RemovalDenominators {
  double clamped_fraction = 0;
  double largest_weight = 0;
};

// A model before or after the removal of a data set, or retrained without it.
struct RemovalModel {
  ModelResult result;
  // Mean total variation between its class probabilities and those of the
  // retrained model, on every test set.
  std::vector<double> distances;
  std::optional<RemovalDenominators> denominators; // of the removal rule
};

struct RemovalResults {
  size_t set = 0; // position of the set taken out
  std::vector<RemovalModel> models; // the model itself, retrained, merges

  std::string to_json(const std::vector<std::string>& sets) const;
};

// The values of a merge's parameter on the validation parts.
struct SweepResults {
  struct Value {
    double value = 0;
    Averages average;
  };
  std::string name; // of the merge
  std::string method;
  std::string parameter;
  std::vector<Value> values;
  size_t chosen = 0; // position in `values`
};

// Steps of a refined model, as JSON.
struct RefinementResults {
  std::string name;
  std::string report;
};

// The two models whose accuracies are 0 and 1 of share_of_gap.
struct Gap {
  std::string from;
  std::string to;
};

struct ExperimentResults {
  std::vector<std::string> sets;
  std::string base_data; // the set that the base was trained on
  std::vector<double> majority; // share of the most frequent label in each test
  std::vector<ModelResult> models; // base, experts, target, merges
  std::optional<Gap> gap;
  std::vector<SweepResults> sweeps;
  std::vector<RefinementResults> refinements;
  std::string comparisons; // JSON list of all pairs of models
  std::optional<RemovalResults> removal;
  std::vector<StageRecord> stages;
  std::filesystem::path output; // the merged model named by `output`
  std::string experiment; // the YAML file's text

  const ModelResult& find(const std::string& name) const; // of `models`

  std::string to_json() const; // results.json
};

// A table and the best merges, from results.json.
MERGANSER_API std::string results_text(const std::string& json);

} // namespace merganser
