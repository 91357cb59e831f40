#pragma once

#include "io/api.h"
#include "model/config.h"
#include "train/trainer.h"

namespace merganser {

// Throws InputError naming the option whose value makes no sense, on its own or
// for a model of this configuration.
MERGANSER_API void check_options(
    const TrainOptions& options,
    const EncoderConfig& config);

} // namespace merganser
