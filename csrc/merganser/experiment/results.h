#pragma once

#include <filesystem>
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

struct MERGANSER_API ExperimentResults {
  std::vector<std::string> sets;
  std::vector<double> majority; // share of the most frequent label in each test
  std::vector<ModelResult> models; // base, experts, target, merges
  std::vector<StageRecord> stages;
  std::filesystem::path output; // the merged model named by `output`
  std::string experiment; // the YAML file's text

  // The merges with the highest average accuracy and the lowest average loss.
  const ModelResult& best_by_accuracy() const;
  const ModelResult& best_by_loss() const;

  std::string to_text() const; // a table and the best merges
  std::string to_json() const;
};

} // namespace merganser
