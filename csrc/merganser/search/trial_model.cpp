#include "merganser/search/trial_model.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "merganser/engine/merge_tensor.h"
#include "merganser/merge/fisher_means.h"
#include "merganser/model/parameter_names.h"

namespace merganser {

TrialModel::TrialModel(const MergePlan& plan)
    : classifier_(plan.reference->path()) {
  for (const auto& item : classifier_.encoder->named_parameters()) {
    for (const std::string& name : names_in_checkpoints(item.key())) {
      const auto output = [&](const TensorPlan& tensor) {
        return tensor.output.name == name;
      };
      if (std::ranges::any_of(plan.tensors, output)) {
        parameters_.emplace(name, item.value());
        break;
      }
    }
  }
}

void TrialModel::merge(MergePlan plan) {
  inputs_.hold(plan);
  const int threads = at::get_num_threads();
  const std::vector<double> means = fisher_means(plan, threads);
  for (const TensorPlan& tensor : plan.tensors) {
    const auto found = parameters_.find(tensor.output.name);
    if (found == parameters_.end()) {
      continue; // the classifier does not use it
    }
    const auto n = static_cast<size_t>(found->second.numel());
    auto* values = found->second.mutable_data_ptr<float>();
    const DType dtype = tensor.output.dtype;
    if (dtype == DType::kF32) {
      const auto out = std::as_writable_bytes(std::span(values, n));
      merge_tensor(tensor, 0, means, out, threads);
    } else {
      bytes_.resize(tensor.output.bytes());
      merge_tensor(tensor, 0, means, bytes_, threads);
      to_float32(dtype, bytes_.data(), values, n);
    }
  }
}

} // namespace merganser
