#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/eval/eval_result.h"
#include "merganser/experiment/events.h"

namespace merganser {

// A model's results on every test set.
struct ModelResult {
  std::string name;
  std::string kind; // "base", "expert", "target", "merge"
  std::filesystem::path path; // relative to the experiment's directory
  std::vector<EvalResult> sets; // in the order of ExperimentResults::sets
  std::string mismatch = {}; // JSON; empty: not measured

  double average_accuracy() const; // mean over sets
  double average_loss() const;
  double example_accuracy() const; // mean over all examples
};

// A model before or after the removal of a data set, or retrained without it.
struct RemovalModel {
  ModelResult result;
  // Mean total variation between its class probabilities and those of the
  // retrained model, on every test set.
  std::vector<double> distances;
  std::optional<double> clamped_fraction; // of the removal rule's denominators
};

struct RemovalResults {
  size_t set = 0; // position of the set taken out
  std::vector<RemovalModel> models; // the model itself, retrained, merges

  std::string to_text(const std::vector<std::string>& sets) const;
  std::string to_json(const std::vector<std::string>& sets) const;
};

struct MERGANSER_API ExperimentResults {
  std::vector<std::string> sets;
  std::vector<double> majority; // share of the most frequent label in each test
  std::vector<ModelResult> models; // base, experts, target, merges
  std::optional<RemovalResults> removal;
  std::vector<StageRecord> stages;
  std::filesystem::path output; // the merged model named by `output`
  std::string experiment; // the YAML file's text

  const ModelResult& find(const std::string& name) const; // of `models`
  // The merges with the highest average accuracy and the lowest average loss.
  const ModelResult& best_by_accuracy() const;
  const ModelResult& best_by_loss() const;

  std::string to_text() const; // a table and the best merges
  std::string to_json() const;
};

} // namespace merganser
