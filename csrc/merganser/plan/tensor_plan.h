#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "merganser/io/lora.h"
#include "merganser/io/safetensors.h"
#include "merganser/recipe/method.h"
#include "merganser/recipe/parameter_values.h"

namespace merganser {

enum class TensorAction {
  kMerge, // by the method's formula
  kCopy, // the bytes of the base, or of the first model where there is no base
};

// Stored tensor that an output tensor is computed from.
struct TensorSource {
  StoredTensor tensor;
  size_t input = 0; // position in MergePlan::inputs
  bool is_fisher = false;
  const LoraUpdate* update = nullptr; // added to the tensor when it is read
  double power = 1; // of a Fisher, which its values are raised to when read
};

// The mean Gram matrix of a linear layer's inputs, or its estimate from a task
// vector, S = tau^T tau / |tau|^2.
struct GramSource {
  TensorSource
      matrix; // (in, in); of a task vector: the base's weight, (out, in)
  double num_examples = 1; // N: G = N times the mean
  bool of_task_vector = false;
};

// Everything needed to compute one tensor of a merged model.
struct TensorPlan {
  const MethodInfo* method = nullptr;
  TensorInfo output;
  // Name that seeds random choices; tied tensors share one.
  std::string drawn_as;
  TensorAction action = TensorAction::kMerge;
  std::string reason; // for the copy or average; empty for other tensors
  bool float64 = false; // arithmetic in float64, otherwise in float32
  size_t num_models = 0;
  // Sources of a merged tensor: base, base Fisher, models, Fishers, as far as
  // the method uses them, at the positions below. A copied tensor has one.
  std::vector<TensorSource> sources;
  double base_num_examples = 0; // N_0
  std::vector<double> num_examples; // N_t, one per model
  // Gram matrices for the weight of a linear layer under a block rule: the
  // base's if the method uses it (those of task vectors can do without), and
  // one per model. They replace the Fishers.
  std::vector<GramSource> grams;
  bool spectral = false; // merged by singular vectors of the task vectors
  std::vector<TensorParameters> parameters; // one per output
  uint64_t bytes_read = 0;

  // True if plan_average has replaced the formula.
  bool lacks_fishers() const {
    return action == TensorAction::kMerge && !reason.empty();
  }

  // Positions in `sources` of a merged tensor.
  size_t base() const {
    return 0;
  }
  size_t base_fisher() const {
    return method->needs_base;
  }
  size_t model(size_t t) const {
    return base_fisher() + has_base_fisher() + t;
  }
  size_t fisher(size_t t) const {
    return model(num_models) + t;
  }
  bool has_base_fisher() const {
    return method->needs_base_fisher && grams.empty();
  }
  bool has_fishers() const {
    return method->needs_fishers && grams.empty();
  }

  // Positions in `grams`.
  bool has_base_gram() const {
    return grams.size() > num_models;
  }
  size_t base_gram() const {
    return 0;
  }
  size_t gram(size_t t) const {
    return has_base_gram() + t;
  }
};

// Replaces the method's formula by the models' average by weight, for a tensor
// that no Fisher has. Without average_buffers, and where the weights sum to 0,
// the result is the base's tensor. Expects parameters, but no sources yet.
MERGANSER_API void plan_average(TensorPlan& tensor);

// True if the output has the bytes of its only source: passthrough with scale
// 1. (The formula, a sum that starts at 0, loses the sign of zeros.)
MERGANSER_API bool keeps_bytes(const TensorPlan& tensor);

} // namespace merganser
