#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/merge/fisher_means.h"
#include "merganser/plan/plan.h"

namespace merganser {

// A tensor in memory; `label` names what it is of in errors.
struct MemoryTensor {
  std::filesystem::path label;
  TensorInfo info;
  std::span<const std::byte> data;
};

// What a tensor is merged of. Each list begins with the base's, if the method
// takes one, and then has one per model.
struct MemorySources {
  std::vector<MemoryTensor> weights;
  std::vector<MemoryTensor> fishers; // none where there are Gram matrices
  std::vector<MemoryTensor> grams; // of a linear layer's weight, or none
};

// The numbers of examples of Fishers and Gram matrices, as in MemorySources.
struct MemoryExamples {
  std::vector<double> fishers;
  std::vector<double> grams;
};

// What a formula multiplies with, for one tensor: see MergeScalars.
struct MemoryScalars {
  TensorParameters parameters;
  std::vector<double> scales; // of the models' Fishers
  double base_scale = 0;
};

// Merges tensors in memory, one at a time, through what merges files.
class MERGANSER_API MemoryMerge {
 public:
  // `parameters` and `models`: those of the merge and of each model, YAML as in
  // a recipe, but only of this method and without a sweep. `names`: of all
  // tensors, for parameters that depend on the layer. Throws InputError as a
  // recipe would.
  MemoryMerge(
      std::string_view method,
      const std::string& parameters,
      const std::vector<std::string>& models,
      const std::vector<std::string>& names,
      MemoryExamples examples);

  // Whether normalize_fishers is set for a tensor. Where it is for any, every
  // Fisher of every tensor that is merged with Fishers is added first, in the
  // order of the tensors' names; `fisher`: its place in MemorySources.
  bool normalizes_fishers(const std::string& name) const;
  void add_fisher(size_t fisher, const MemoryTensor& tensor, int threads = 0);

  // Throws InputError for weights that sum to 0 where a formula divides by
  // their sum, and for a Fisher whose mean is 0.
  MemoryScalars scalars(const std::string& name) const;

  // All sources are of the output's shape, but Gram matrices. Random choices
  // depend on the tensor's name and the models' order. The same bits for any
  // number of threads (0: all cores). Throws InputError for what is not finite
  // or does not fit into the output's type.
  void merge(
      const TensorInfo& output,
      const MemorySources& sources,
      std::span<std::byte> out,
      int threads = 0);

 private:
  TensorParameters parameters_of(const std::string& name) const;
  double fisher_scale(const TensorParameters& parameters, size_t fisher) const;

  MergePlan plan_; // of one tensor at a time
  std::vector<Settings> models_;
  std::map<std::string, double> depths_; // of the tensors
  MemoryExamples examples_;
  std::vector<FisherMean> means_; // of the Fishers
  std::vector<std::filesystem::path> labels_; // of the Fishers
};

} // namespace merganser
