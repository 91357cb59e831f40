#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/fisher_scale.h"
#include "merganser/io/subspace_file.h"
#include "merganser/io/yaml_value.h"
#include "merganser/merge/fisher_means.h"
#include "merganser/plan/measured_scale.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// A tensor in memory; errors name its owner by `label`.
struct MemoryTensor {
  std::filesystem::path label;
  TensorInfo info;
  std::span<const std::byte> data;
};

// Sources of a tensor. Each list begins with the base's, if the method uses it,
// and continues with one per model.
struct MemorySources {
  std::vector<MemoryTensor> weights;
  // None where there are Gram matrices, and for tensors to average.
  std::vector<MemoryTensor> fishers;
  std::vector<MemoryTensor> grams; // for the weight of a linear layer, or none
  // The base's weight: the models' Gram matrices are those of task vectors, and
  // `grams` has at most the base's.
  std::optional<MemoryTensor> task_vectors_from;
};

// The numbers of examples of Fishers and Gram matrices, as in MemorySources.
struct MemoryExamples {
  std::vector<double> fishers;
  std::vector<double> grams;
  // Statistics in the Fishers' metadata; empty if none has any.
  std::vector<std::optional<TaskVectorStatistics>> task_vectors;
  std::vector<std::optional<FisherScale>> scales; // likewise
};

// Factors of a formula for one tensor; see MergeScalars.
struct MemoryScalars {
  TensorParameters parameters;
  std::vector<double> scales; // H = scale F, one per model
  double base_scale = 0;
};

// Merges tensors in memory, one at a time, with the arithmetic of the engine.
class MERGANSER_API MemoryMerge {
 public:
  // `parameters` and `models`: the mappings `parameters` of the merge and of
  // each model, as in a recipe, but only of this method and without a sweep.
  // `names`: of all tensors, for parameters that depend on the layer. Throws
  // InputError as a recipe would. `subspace`: for the methods that need one
  // and for weight: auto, with an expert per model, in this order; its hashes
  // are not read.
  MemoryMerge(
      std::string_view method,
      const YamlValue& parameters,
      const std::vector<YamlValue>& models,
      const std::vector<std::string>& names,
      MemoryExamples examples,
      const std::optional<SubspaceFisher>& subspace = {});

  // Reason why the subspace weights are unstable; empty if they are stable.
  const std::optional<std::string>& unstable_weights() const {
    return unstable_;
  }
  // Sentences on measured rhos that make the merge unstable.
  const std::vector<std::string>& unstable_rhos() const {
    return unstable_rhos_;
  }

  // True if normalize_fishers is set for a tensor. If it is for any, every
  // Fisher of every tensor that is merged with Fishers is added first, in the
  // order of the tensors' names; `fisher`: its position in MemorySources.
  bool normalizes_fishers(const std::string& name) const;
  void add_fisher(size_t fisher, const MemoryTensor& tensor, int threads = 0);

  // The power that `merge` raises the Fishers of a tensor to.
  double fisher_power(const std::string& name) const;

  // Throws InputError for weights that sum to 0 where a formula divides by
  // their sum, and for a Fisher whose mean is 0.
  MemoryScalars scalars(const std::string& name) const;

  // All sources have the output's shape, except Gram matrices. Random choices
  // depend on the tensor's name and the order of the models. The bits do not
  // depend on the number of threads (0: all cores). Throws InputError for a
  // value that is not finite or that the output's type cannot hold.
  void merge(
      const TensorInfo& output,
      const MemorySources& sources,
      std::span<std::byte> out,
      int threads = 0) const;

 private:
  void read_rhos();
  void read_scales();
  void solve(const SubspaceFisher& subspace);
  std::vector<const Settings*> model_settings() const;
  TensorParameters parameters_of(const std::string& name) const;
  double num_examples(size_t fisher) const;
  TensorPlan plan(const TensorInfo& output, const MemorySources& from) const;
  std::vector<double> fisher_means(const TensorPlan& tensor) const;

  const MethodInfo& method_;
  Settings parameters_;
  std::vector<Settings> models_;
  std::map<std::string, double> depths_; // by tensor
  MemoryExamples examples_;
  std::vector<FisherMean> means_; // by Fisher
  std::vector<std::filesystem::path> labels_; // by Fisher
  std::vector<std::optional<Estimate>> rhos_; // by model
  MeasuredScales scales_;
  // The models' weights in the subspace, by tensor.
  std::map<std::string, std::vector<double>> subspace_weights_;
  std::optional<std::string> unstable_;
  std::vector<std::string> unstable_rhos_;
};

} // namespace merganser
