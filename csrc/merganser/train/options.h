#pragma once

#include "merganser/base/api.h"
#include "merganser/model/config.h"
#include "merganser/train/trainer.h"

namespace merganser {

// Throws InputError naming the option whose value makes no sense, on its own or
// for a model of this configuration.
MERGANSER_API void check_options(
    const TrainOptions& options,
    const EncoderConfig& config);

} // namespace merganser
