#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"

// Directories of sentence-transformers: next to the transformer, modules.json
// names modules (Pooling, Dense, Normalize), each with a directory of its own.
namespace merganser {

struct SentenceModule {
  std::string type; // the class without its Python module: "Pooling"
  std::filesystem::path folder; // in the model's directory; "": itself
};

// The modules that the model's modules.json names, in its order; none without
// that file. Throws InputError for a file that is no such list, and for a
// directory outside the model's.
MERGANSER_API std::vector<SentenceModule> read_sentence_modules(
    const std::filesystem::path& model);

// The directories of those modules that have a model.safetensors, without the
// model's own.
MERGANSER_API std::vector<std::filesystem::path> modules_with_weights(
    const std::filesystem::path& model);

} // namespace merganser
