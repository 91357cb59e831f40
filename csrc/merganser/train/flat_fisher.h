#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "merganser/base/api.h"
#include "merganser/io/fisher_scale.h"
#include "merganser/train/arena.h"

namespace merganser {

// A Fisher file as a flat array laid out like an arena.
struct MERGANSER_API FlatFisher {
  at::Tensor mean; // F (n)
  double num_examples = 0; // N: H = N F
  int64_t num_examples_used = 0; // that F averages
  std::string model_hash; // of the weights it was estimated on; empty: unknown
  std::optional<FisherScale> scale; // merganser calibrate

  // False if the file names other weights than those with `hash`.
  bool may_belong_to(const std::string& hash) const;
};

// Throws InputError when the file is not a Fisher file, lacks a tensor, or has
// one of another shape or with values that are not finite.
MERGANSER_API FlatFisher
read_flat_fisher(const Arena& arena, const std::filesystem::path& file);

// The same; also throws InputError when the file names other weights than those
// of the model directory.
MERGANSER_API FlatFisher read_fisher_of(
    const std::filesystem::path& model,
    const Arena& arena,
    const std::filesystem::path& file);

} // namespace merganser
