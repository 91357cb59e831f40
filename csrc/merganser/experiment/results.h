#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/eval/eval_result.h"
#include "merganser/experiment/events.h"

namespace merganser {

// A model of the experiment on every test set.
struct ModelResult {
  std::string name;
  std::string kind; // "base", "expert", "target", "merge"
  std::filesystem::path path; // relative to the experiment's folder
  std::vector<EvalResult> sets; // in the order of ExperimentResults::sets

  double average_accuracy() const; // every set counts the same
  double average_loss() const;
  double example_accuracy() const; // every example counts the same
};

struct MERGANSER_API ExperimentResults {
  std::vector<std::string> sets;
  std::vector<double> majority; // share of the most frequent label in each test
  std::vector<ModelResult> models; // base, experts, target, merges
  std::vector<StageRecord> stages;
  std::filesystem::path output; // the merged model that the experiment names
  std::string experiment; // the YAML file's text

  // The merge of the highest average accuracy, and that of the lowest loss.
  const ModelResult& best_by_accuracy() const;
  const ModelResult& best_by_loss() const;

  std::string to_text() const; // a table and a sentence on the best
  std::string to_json() const;
};

} // namespace merganser
