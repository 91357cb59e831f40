#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/fisher/posterior.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Logarithms of the mean over samples of the class probabilities (N, K), in
// float64 on the CPU, in the order of the data. `model` gives the architecture;
// its parameters stay unchanged. The samples are those that
// merganser.Posterior.predict draws with the same seed. Progress counts
// examples of all samples. Throws InputError for a posterior of other
// parameters than the model's, one with precisions of 0, and samples < 1.
MERGANSER_API at::Tensor predictive_average(
    const Encoder& model,
    const Posterior& posterior,
    int64_t samples,
    uint64_t seed,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress = {});

} // namespace merganser
