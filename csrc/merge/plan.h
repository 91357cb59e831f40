#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/api.h"
#include "io/checkpoint.h"
#include "merge/recipe.h"

namespace merganser {

enum class TensorAction {
  kMerge, // by the recipe's formula
  kCopyBase, // integers and bools that agree, or a head with heads: base
};

struct TensorPlan {
  TensorInfo output;
  TensorAction action = TensorAction::kMerge;
  std::string reason; // why it is copied; empty for merged ones
  uint64_t bytes_read = 0;
};

// Everything a merge will do, known before the first byte is written. Opening a
// plan reads headers only.
struct MERGANSER_API MergePlan {
  explicit MergePlan(Recipe recipe); // throws InputError: all problems at once
  ~MergePlan();
  MergePlan(MergePlan&&) noexcept;

  Recipe recipe;
  std::vector<TensorPlan> tensors;
  std::unique_ptr<Checkpoint> base; // null: none
  std::unique_ptr<Checkpoint> base_fisher;
  std::vector<std::unique_ptr<Checkpoint>> models;
  std::vector<std::unique_ptr<Checkpoint>> fishers;
  double base_scale = 0; // N_0
  std::vector<double> scales; // N_t
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  uint64_t peak_memory = 0; // of the buffers

  std::string to_text() const; // a table
  std::string to_json() const;
};

} // namespace merganser
