#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/api.h"
#include "io/checkpoint.h"
#include "io/model_dir.h"
#include "merge/recipe.h"

namespace merganser {

inline constexpr uint64_t kDefaultMemory = uint64_t{256} << 20; // bytes

enum class TensorAction {
  kMerge, // by the recipe's formula
  kCopy, // the bytes of the base, or of the first model where there is no base
};

struct TensorPlan {
  TensorInfo output;
  TensorAction action = TensorAction::kMerge;
  std::string reason; // why it is copied; empty for merged ones
  bool float64 = false; // arithmetic
  // What it is read from: of a merged tensor one per source of the plan, of a
  // copied one the tensor that is copied.
  std::vector<StoredTensor> sources;
  uint64_t bytes_read = 0;
};

// A checkpoint that merged tensors are read from.
struct MergeSource {
  const Checkpoint* checkpoint = nullptr;
  bool is_fisher = false;
};

// heads: per_task: what is kept of a model beside the merged one.
struct TaskHead {
  std::string file; // "heads/yelp.safetensors"
  std::vector<TensorInfo> tensors;
};

// Everything a merge will do, known before the first byte is written. Opening a
// plan reads headers, config.json and tokenizer files only; without a base also
// the integer and bool tensors, which must agree.
struct MERGANSER_API MergePlan {
  // Throws InputError that lists all problems at once.
  explicit MergePlan(Recipe recipe);

  Recipe recipe;
  std::vector<double> weights; // alpha_t, normalized if the recipe says so
  std::optional<ModelDir> reference; // of config.json and the tokenizer
  std::optional<Checkpoint> base; // only if the recipe has one
  std::vector<Checkpoint> models;
  std::optional<Checkpoint> base_fisher; // Fishers only if the method uses them
  std::vector<Checkpoint> fishers;
  double base_scale = 0; // N_0
  std::vector<double> scales; // N_t

  std::vector<TensorPlan> tensors; // in the order of the output
  std::vector<TaskHead> heads; // one per model, or none
  std::vector<std::string> notes; // what the recipe has and the method ignores
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;

  // Bytes of the buffers; threads 0: all cores.
  uint64_t peak_memory(int threads) const;

  // Base, base_fisher, models, Fishers, as far as the method uses them.
  std::vector<MergeSource> sources() const;
  // Their checkpoints, and the base's where only its copied tensors are read.
  std::vector<const Checkpoint*> inputs() const;

  // Copied tensors and the order of tensors are this one's.
  const Checkpoint& reference_weights() const {
    return base ? *base : models.front();
  }

  std::string to_text(int threads = 0) const; // tables
  std::string to_json(int threads = 0) const;
};

} // namespace merganser
