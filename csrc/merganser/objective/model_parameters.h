#pragma once

#include <filesystem>

#include "merganser/base/api.h"
#include "merganser/model/classifier.h"
#include "merganser/train/arena.h"

namespace merganser {

// The parameters of `model`, read from `folder`, as a flat array laid out like
// the arena of the model in `base`. Throws InputError naming the first tensor
// that has another shape than the base's.
MERGANSER_API at::Tensor flat_parameters(
    const Classifier& model,
    const std::filesystem::path& folder,
    const Arena& arena,
    const std::filesystem::path& base);

} // namespace merganser
