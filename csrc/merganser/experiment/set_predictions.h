#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "merganser/experiment/stages.h"

namespace merganser {

struct SetPredictions {
  at::Tensor log_probabilities; // (N, K), as predict() returns them
  std::vector<int64_t> labels;
};

// Predictions of a model on one part of every data set, in the order of
// experiment.data; progress counts the examples of all.
std::vector<SetPredictions> predict_sets(
    const Workplace& work,
    std::filesystem::path DataFiles::*part,
    const std::filesystem::path& model,
    const ProgressCallback& progress);

} // namespace merganser
