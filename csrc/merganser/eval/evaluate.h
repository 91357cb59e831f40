#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/eval/eval_result.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Runs the model in eval mode and restores its mode. Progress counts examples.
MERGANSER_API EvalResult evaluate(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress = {});

} // namespace merganser
