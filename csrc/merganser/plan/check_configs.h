#pragma once

#include <string>
#include <vector>

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

// Throws InputError for a model with quantized weights, whose integers and
// scales mean nothing apart.
void check_not_quantized(const ModelDir& model);

// Adds a note per file, and per other value of config.json, that differs
// between two models and that the output gets from the reference: code, chat
// templates, settings of tokenizers, processors and generation. One more note
// each lists such files, and vocabularies, that the reference lacks, and values
// that give tensors their meaning and that one config.json lacks.
void note_differences(
    const ModelDir& model,
    const ModelDir& reference,
    bool any_depth,
    std::vector<std::string>& notes);

} // namespace merganser
