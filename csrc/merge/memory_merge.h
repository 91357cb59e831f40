#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/api.h"
#include "merge/plan.h"

namespace merganser {

// A tensor in memory; `label` names its model in errors.
struct MemoryTensor {
  std::filesystem::path label;
  DType dtype = DType::kF32;
  std::span<const std::byte> data;
};

// Merges tensors in memory by a method that looks at whole ones (ties, dare,
// slerp, ...), through what merges files. (The other methods have an op.)
class MERGANSER_API MemoryMerge {
 public:
  // `parameters` and `models`: those of the merge and of each model, YAML as in
  // a recipe. `names`: of all tensors, for parameters that depend on the layer.
  // Throws InputError as a recipe would; and for a method with Gram matrices,
  // which are only read from files.
  MemoryMerge(
      std::string_view method,
      const std::string& parameters,
      const std::vector<std::string>& models,
      const std::vector<std::string>& names);

  // `sources`: of the base, then of the models, all of the output's shape.
  // Random choices depend on the tensor's name and the models' order. The same
  // bits for any number of threads (0: all cores). Throws InputError for what
  // is not finite or does not fit into the output's type.
  void merge(
      const TensorInfo& output,
      std::span<const MemoryTensor> sources,
      std::span<std::byte> out,
      int threads = 0);

 private:
  double depth_of(const std::string& name) const;

  MergePlan plan_; // of one tensor at a time
  std::vector<Settings> models_;
  std::vector<std::string> names_;
  std::vector<double> depths_; // of names_
};

} // namespace merganser
