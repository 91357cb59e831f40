#pragma once

#include "merganser/base/problems.h"
#include "merganser/io/model_dir.h"

namespace merganser {

// Compares the modules of two directories of sentence-transformers: their
// classes, directories and settings. A directory without modules.json takes the
// reference's modules; a reference without it would lose the model's.
void check_modules(
    const ModelDir& model,
    const ModelDir& reference,
    Problems& problems);

} // namespace merganser
