#pragma once

#include <filesystem>
#include <string>

#include "merganser/base/api.h"
#include "merganser/train/arena.h"

namespace merganser {

// A Fisher file as a flat array laid out like an arena.
struct FlatFisher {
  at::Tensor mean; // F (n)
  double num_examples = 0; // N: H = N F
};

// Throws InputError when the file is not a Fisher file, lacks a tensor, has one
// of another shape or with values that are not finite, or was estimated on
// other weights than those with `model_hash`, which messages call `model`.
MERGANSER_API FlatFisher read_flat_fisher(
    const Arena& arena,
    const std::filesystem::path& file,
    const std::string& model_hash,
    const std::string& model);

} // namespace merganser
