#pragma once

#include "merganser/base/problems.h"
#include "merganser/io/model_dir.h"

namespace merganser {

// Checks that two model directories can be versions of one model: compares the
// values of config.json that give tensors their meaning, the vocabulary and,
// unless skip_heads, the classes; with any_depth, the number of layers may
// differ. Adds a sentence per difference, naming both files.
void check_configs(
    const ModelDir& model,
    const ModelDir& reference,
    bool skip_heads,
    bool any_depth,
    Problems& problems);

} // namespace merganser
