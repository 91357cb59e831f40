#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/lora.h"
#include "merganser/io/model_dir.h"
#include "merganser/recipe/parameter_values.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

inline constexpr uint64_t kDefaultMemory = uint64_t{256} << 20; // bytes

enum class TensorAction {
  kMerge, // by the recipe's formula
  kCopy, // the bytes of the base, or of the first model where there is no base
};

// What a tensor is read from.
struct TensorSource {
  StoredTensor tensor;
  size_t input = 0; // in plan.inputs
  bool is_fisher = false;
  const LoraUpdate* update = nullptr; // added to it
};

// The mean Gram matrix of a linear layer's inputs.
struct GramSource {
  TensorSource matrix; // (in, in)
  double scale = 1; // N: G = N times the mean
};

struct TensorPlan {
  TensorInfo output;
  TensorAction action = TensorAction::kMerge;
  std::string reason; // why it is copied; empty for merged ones
  bool float64 = false; // arithmetic
  // Of a merged tensor: base, base_fisher, models, Fishers, as far as the
  // method uses them. Of a copied one: itself.
  std::vector<TensorSource> sources;
  std::vector<double> scales; // N_t of the models
  // Of a linear layer's weight: of the base, if the method uses it, and of the
  // models. Fishers are not among its sources then.
  std::vector<GramSource> grams;
  std::vector<TensorParameters> parameters; // one per output
  uint64_t bytes_read = 0;
};

// A model of the recipe, or a source of one of its slices.
struct PlanModel {
  RecipeModel recipe;
  size_t weights = 0; // in plan.inputs
  std::optional<size_t> fisher; // in plan.inputs, if the method uses it
  std::optional<size_t> gram; // in plan.inputs, if the method uses it
  std::shared_ptr<const LoraAdapter> adapter;
  double scale = 1; // N_t
  double gram_scale = 1; // N_t, as the Gram file has it
};

struct PlanSlice {
  std::vector<PlanModel> models;
  size_t first = 0; // in models, of the one that the recipe names first
  Settings parameters;
  int base_first_layer = 0;
};

// heads: per_task: what is kept of a model beside the merged one.
struct TaskHead {
  std::string file; // "heads/yelp.safetensors"
  size_t model = 0; // in plan.inputs
  std::vector<TensorInfo> tensors;
};

// Everything a merge will do, known before the first byte is written. Opening a
// plan reads headers, config.json, tokenizer files and, of models with Fishers,
// the tensors' beginnings; without a base also the integer and bool tensors,
// which must agree.
struct MERGANSER_API MergePlan {
  MergePlan() = default; // of nothing
  // Throws InputError that lists all problems at once.
  explicit MergePlan(Recipe recipe);

  Recipe recipe;
  // Every checkpoint that something is read from, each once.
  std::vector<std::shared_ptr<const Checkpoint>> inputs;
  std::optional<ModelDir> reference; // of config.json and the tokenizer
  size_t reference_weights = 0; // input that gives copied tensors, and order
  std::optional<size_t> base; // input, only if the recipe has one
  std::optional<size_t> base_fisher; // input, only if the method uses it
  std::optional<size_t> base_gram; // input, only if the method uses it
  double base_scale = 0; // N_0
  double base_gram_scale = 0; // N_0, as the Gram file has it
  // One for a recipe without slices. Models are sorted by their paths, so that
  // their order in the recipe does not change a sum's rounding.
  std::vector<PlanSlice> slices;
  // Of the outputs: their folders below OUT, or one empty name.
  std::vector<std::string> outputs;

  std::vector<TensorPlan> tensors; // in the order of the output
  std::vector<TaskHead> heads; // one per model, or none
  std::vector<std::string> notes; // what the recipe has and the method ignores
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;

  // Bytes of the buffers; threads 0: all cores.
  uint64_t peak_memory(int threads) const;

  // As many as asked for (0: all cores), as far as their buffers fit into
  // `memory` bytes. Throws InputError where those of one thread do not.
  int affordable_threads(int threads, uint64_t memory) const;

  std::string to_text(int threads = 0) const; // tables
  std::string to_json(int threads = 0) const;
};

} // namespace merganser
