#pragma once

#include <cstdint>
#include <filesystem>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/io/fisher_scale.h"

namespace merganser {

struct FisherScaleOptions {
  std::filesystem::path fisher;
  std::filesystem::path model; // the Fisher's
  std::filesystem::path merge; // another model with the same tensors
  std::filesystem::path data; // labelled
  int64_t limit = -1; // examples, sampled with `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false;
};

// Measures the ratio of the loss's curvature to that of a Fisher's quadratic
// along the path D from its model to a merge: the curvature of the mean loss,
// 4 (l(0) - 2 l(1/2) + l(1)) from its values at three points, over D^T F D.
// Forward passes only, in eval mode. Progress counts examples. Throws
// InputError for invalid options, models or data, and where the ratio is not
// positive.
MERGANSER_API FisherScale measure_fisher_scale(
    const FisherScaleOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
