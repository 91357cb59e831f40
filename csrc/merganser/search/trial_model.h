#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include "merganser/engine/held_inputs.h"
#include "merganser/model/classifier.h"
#include "merganser/plan/plan.h"

namespace merganser {

// A classifier into whose parameters plans of the same files are merged. Each
// merge gives the values that the model of execute_merge has once it is loaded.
class TrialModel {
 public:
  // Loads the model whose config.json and tokenizer the merge gets.
  explicit TrialModel(const MergePlan& plan);

  void merge(MergePlan plan);
  Classifier& classifier() {
    return classifier_;
  }

 private:
  Classifier classifier_;
  std::unordered_map<std::string, at::Tensor> parameters_; // by output
  HeldInputs inputs_;
  std::vector<std::byte> bytes_; // of an output of another type
};

} // namespace merganser
