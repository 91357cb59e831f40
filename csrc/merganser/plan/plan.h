#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/model_dir.h"
#include "merganser/io/task_vector.h"
#include "merganser/plan/name_map.h"
#include "merganser/plan/subspace_weights.h"
#include "merganser/plan/tensor_plan.h"
#include "merganser/recipe/recipe.h"

namespace merganser {

// A model of the recipe, or a source of one of its slices.
struct PlanModel {
  RecipeModel recipe;
  size_t weights = 0; // position in MergePlan::inputs
  std::optional<size_t> fisher; // likewise, if the method uses it
  std::optional<size_t> gram; // likewise, if the method uses it
  std::shared_ptr<const LoraAdapter> adapter;
  NameMap adapter_names; // of the adapter's tensors
  double num_examples = 1; // N_t
  std::optional<Estimate> rho; // as measured, if the method uses it
  std::optional<Estimate> fisher_scale; // likewise
  double gram_num_examples = 1; // N_t, as the Gram file has it
};

struct PlanSlice {
  std::vector<PlanModel> models;
  size_t first = 0; // position in `models` of the one the recipe names first
  Settings parameters;
  int base_first_layer = 0;
};

// A model's own classification head under heads: per_task.
struct TaskHead {
  std::string file; // "heads/yelp.safetensors"
  std::vector<TensorInfo> tensors;
  std::vector<StoredTensor> sources; // one per tensor
};

// Everything a merge will do, known before the first byte is written;
// make_plan (plan/planner.h) builds it.
struct MERGANSER_API MergePlan {
  Recipe recipe;
  // Every checkpoint that is read, each once.
  std::vector<std::shared_ptr<const Checkpoint>> inputs;
  std::vector<NameMap> names; // of the tensors of each input
  std::set<std::string> head_names; // head tensors, if not merged
  std::optional<ModelDir> reference; // source of config.json and the tokenizer
  size_t reference_weights = 0; // input with the copied tensors and the order
  std::optional<size_t> base; // input, if the recipe has a base
  std::optional<size_t> base_fisher; // input, if the method uses it
  std::optional<size_t> base_gram; // input, if the method uses it
  std::optional<size_t> subspace; // input, if the method uses it
  double base_num_examples = 0; // N_0
  std::optional<Estimate> base_fisher_scale; // as measured, if it is used
  double base_gram_num_examples = 0; // N_0, as the Gram file has it
  // One for a recipe without slices. Models are sorted by their paths, so that
  // their order in the recipe does not change how sums round.
  std::vector<PlanSlice> slices;
  // Directories below OUT, one per output; a single empty name without a sweep.
  std::vector<std::string> outputs;

  // Data of a method that uses a subspace: the solution of each output, the
  // content hashes of the base and then of each model that it was estimated on,
  // the names of its groups, and the group of each tensor.
  std::vector<SubspaceWeights> subspace_weights;
  std::vector<std::string> subspace_hashes;
  std::vector<std::string> subspace_groups;
  std::map<std::string, size_t> subspace_group_of;

  std::vector<TensorPlan> tensors; // in the order of the output
  std::vector<TaskHead> heads; // one per model, or none
  std::vector<std::string> notes; // unused keys of the recipe, extra reads
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;

  NamedCheckpoint named(size_t input) const {
    return {*inputs[input], names[input]};
  }
  // True for a tensor to which the recipe's `heads` applies, by the reference's
  // name.
  bool is_head(const std::string& name) const {
    return head_names.contains(name);
  }
};

// True if a tensor's parameters ask for normalize_fishers.
bool normalizes_fishers(const MergePlan& plan);

// Positions in MergePlan::inputs of the Fishers that the merge uses.
std::set<size_t> fishers_of(const MergePlan& plan);

// True if all models of a slice have the values of `expected`, the base's or
// first model's tensor, under `names`; constants may be missing. A merge
// without a Fisher for it copies it.
bool is_unchanged(
    const MergePlan& plan,
    const PlanSlice& slice,
    const StoredTensor& expected,
    const std::vector<std::string>& names);

} // namespace merganser
