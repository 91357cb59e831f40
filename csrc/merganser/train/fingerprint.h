#pragma once

#include <string>

#include "merganser/base/api.h"
#include "merganser/train/train_options.h"

namespace merganser {

// A JSON object of everything that a training run's result depends on: options
// by their names on the command line, and the hashes of the model and of the
// data files. Two runs with equal fingerprints end with the same bits
// (on one machine, with one number of threads).
MERGANSER_API std::string fingerprint(
    const TrainOptions& options,
    const std::string& weights_hash);

} // namespace merganser
