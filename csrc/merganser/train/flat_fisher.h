#pragma once

#include <filesystem>
#include <string>

#include "merganser/base/api.h"
#include "merganser/train/arena.h"

namespace merganser {

// A Fisher file as a flat array laid out like an arena.
struct MERGANSER_API FlatFisher {
  at::Tensor mean; // F (n)
  double num_examples = 0; // N: H = N F
  std::string model_hash; // of the weights it was estimated on; empty: unknown

  // False if the file names other weights than those with `hash`.
  bool may_belong_to(const std::string& hash) const;
};

// Throws InputError when the file is not a Fisher file, lacks a tensor, or has
// one of another shape or with values that are not finite.
MERGANSER_API FlatFisher
read_flat_fisher(const Arena& arena, const std::filesystem::path& file);

} // namespace merganser
