#pragma once

#include <cstdint>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/eval/eval_result.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Model in eval mode; left in the mode it was in. Progress counts examples.
MERGANSER_API EvalResult evaluate(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress = {});

} // namespace merganser
