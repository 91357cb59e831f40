#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"
#include "merganser/train/metrics.h"

namespace merganser {

// State that changes during training. Random numbers and the order of the data
// are functions of (seed, step) and therefore not part of it.
struct TrainState {
  int64_t step = 0; // completed steps
  int64_t examples = 0; // examples seen
  double epoch_loss = 0; // sum over this epoch's examples
  int64_t epoch_examples = 0;
  int64_t fisher_examples = 0; // examples in the running Fisher sum
  std::vector<EpochMetrics> epochs; // completed epochs
  int64_t best_epoch = 0; // from 1; 0: none yet
  double best_accuracy = -1;
  uint64_t metrics_bytes = 0;
};

// The flat arrays of a checkpoint, by name.
using FlatArrays = std::vector<std::pair<std::string, at::Tensor>>;

// Writes a file of flat arrays atomically: a process killed at any moment
// leaves the previous or the new file.
MERGANSER_API void save_arrays(
    const std::filesystem::path& file,
    const FlatArrays& arrays,
    const Metadata& metadata = {});
MERGANSER_API void load_arrays(
    const SafetensorsFile& file,
    const FlatArrays& arrays);

// Writes a checkpoint. `fingerprint` is a JSON object of everything that the
// result depends on (see fingerprint.h).
MERGANSER_API void save_state(
    const std::filesystem::path& file,
    const TrainState& state,
    const std::string& fingerprint,
    const FlatArrays& arrays);

// Throws InputError naming the first entry in which a file's fingerprint
// differs from this one, or if it has none.
MERGANSER_API void check_same_run(
    const SafetensorsFile& file,
    const std::string& fingerprint);

// Fills `arrays` in place. Throws InputError naming the first entry of the
// fingerprints that differs.
MERGANSER_API TrainState load_state(
    const std::filesystem::path& file,
    const std::string& fingerprint,
    const FlatArrays& arrays);

} // namespace merganser
