#pragma once

#include <cstdint>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/error.h"
#include "merganser/base/progress.h"
#include "merganser/eval/eval_result.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

class MERGANSER_API NonfiniteLoss : public Error {
 public:
  using Error::Error;
};

// Scores the logarithms of class probabilities (N, K), as predict() returns
// them. Calibration error: examples fall into 15 bins ((m - 1) / 15, m / 15] of
// the probability of their most probable label; it is the mean over examples of
// |accuracy - mean probability| of their bin (Guo et al., ICML 2017). Throws
// Error when the loss is not finite.
MERGANSER_API EvalResult
score(const at::Tensor& log_probabilities, const std::vector<int64_t>& labels);

// Runs the model in eval mode and restores its mode. Progress counts examples.
MERGANSER_API EvalResult evaluate(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress = {});

} // namespace merganser
