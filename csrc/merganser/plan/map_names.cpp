#include "merganser/plan/map_names.h"

#include <algorithm>
#include <map>

#include "merganser/plan/check_tensors.h"
#include "merganser/plan/compare_tensors.h"
#include "merganser/plan/tensor_planner.h"

namespace merganser {
namespace {

class Mapper {
 public:
  explicit Mapper(MergePlan& plan)
      : plan_(plan),
        reference_(*plan.inputs[plan.reference_weights]),
        fishers_(fishers_of(plan)) {
    weights_.insert(plan.reference_weights);
    for (const PlanSlice& slice : plan.slices) {
      for (const PlanModel& model : slice.models) {
        weights_.insert(model.weights);
      }
    }
  }

  void run() {
    const std::vector<std::string> names = names_of(reference_);
    plan_.names.clear();
    for (const auto& input : plan_.inputs) {
      plan_.names.emplace_back(names_of(*input), names);
    }
    for (PlanSlice& slice : plan_.slices) {
      for (PlanModel& model : slice.models) {
        if (model.adapter) {
          model.adapter_names = NameMap(model.adapter->tensors(), names);
        }
      }
    }
    if (plan_.recipe.heads != HeadMode::kMerge) {
      find_heads();
    }
    for (const TensorInfo& tensor : reference_.tensors()) {
      if (tensor_kind(tensor.dtype) == TensorKind::kFloat &&
          !plan_.is_head(tensor.name) && !is_constant_tensor(tensor)) {
        match_tie(tensor);
      }
    }
  }

 private:
  void find_heads() {
    std::map<std::string, size_t> poolers;
    for (const size_t input : weights_) {
      for (const TensorInfo& tensor : plan_.inputs[input]->tensors()) {
        const std::string& name = plan_.named(input).name_of(tensor);
        if (is_head_tensor(name)) {
          plan_.head_names.insert(name);
        } else if (is_pooler_tensor(name)) {
          ++poolers[name];
        }
      }
    }
    for (const PlanSlice& slice : plan_.slices) {
      for (const PlanModel& model : slice.models) {
        for (const std::string& name : added_tensors(plan_, model)) {
          if (is_head_tensor(name) || is_pooler_tensor(name)) {
            plan_.head_names.insert(name);
          }
        }
      }
    }
    for (const auto& [name, count] : poolers) {
      if (count < weights_.size()) {
        plan_.head_names.insert(name);
      }
    }
    // A tie of a tensor that is merged is merged with it.
    for (const TensorInfo& tensor : reference_.tensors()) {
      if (plan_.is_head(tensor.name) &&
          std::ranges::any_of(
              reference_.tensors(), [&](const TensorInfo& other) {
                return !plan_.is_head(other.name) &&
                    may_be_tied(tensor.name, other.name) &&
                    same_bytes(
                        reference_.at(tensor.name), reference_.at(other.name));
              })) {
        plan_.head_names.erase(tensor.name);
      }
    }
  }

  // Finds a tensor of the reference for those files that lack it, but have a
  // tensor tied to it.
  void match_tie(const TensorInfo& tensor) {
    std::vector<size_t> lacking;
    for (const auto* inputs : {&weights_, &fishers_}) {
      for (const size_t input : *inputs) {
        if (plan_.named(input).find(tensor.name) == nullptr) {
          lacking.push_back(input);
        }
      }
    }
    if (lacking.empty()) {
      return;
    }
    for (const TensorInfo& other : reference_.tensors()) {
      if (is_tie(tensor, other, lacking)) {
        for (const size_t input : lacking) {
          NameMap& names = plan_.names[input];
          names.alias(tensor.name, *names.find(other.name));
        }
        return;
      }
    }
    for (const size_t input : lacking) {
      rename_tie(tensor, input);
    }
  }

  // True if two tensors are equal in every model that stores both, and every
  // file stores one of them.
  bool is_tie(
      const TensorInfo& tensor,
      const TensorInfo& other,
      const std::vector<size_t>& lacking) const {
    if (&tensor == &other || !is_like(tensor, other)) {
      return false;
    }
    const auto has_other = [&](size_t input) {
      return plan_.named(input).find(other.name) != nullptr;
    };
    const auto is_equal = [&](size_t input) {
      const NamedCheckpoint model = plan_.named(input);
      return !model.find(tensor.name) || !model.find(other.name) ||
          same_bytes(model.at(tensor.name), model.at(other.name));
    };
    return std::ranges::all_of(lacking, has_other) &&
        std::ranges::all_of(weights_, is_equal) &&
        (may_be_tied(tensor.name, other.name) ||
         !is_uniform(reference_.at(tensor.name)));
  }

  // Files that store a tie once can store it under either of its names.
  void rename_tie(const TensorInfo& tensor, size_t input) {
    const auto fits = [&](const std::string& name, const TensorInfo& info) {
      return name != tensor.name && info.shape == tensor.shape &&
          may_be_tied(tensor.name, name);
    };
    for (const TensorInfo& other : reference_.tensors()) {
      if (fits(other.name, other)) {
        return;
      }
    }
    const NamedCheckpoint file = plan_.named(input);
    const TensorInfo* found = nullptr;
    for (const TensorInfo& other : file.file.tensors()) {
      if (!fits(file.name_of(other), other)) {
        continue;
      }
      if (found != nullptr &&
          !same_bytes(file.file.at(found->name), file.file.at(other.name))) {
        return;
      }
      found = found == nullptr ? &other : found;
    }
    if (found != nullptr) {
      plan_.names[input].rename(tensor.name, found->name);
    }
  }

  MergePlan& plan_;
  const Checkpoint& reference_;
  std::set<size_t> weights_; // positions in plan.inputs
  std::set<size_t> fishers_; // likewise
};

} // namespace

void map_names(MergePlan& plan) {
  Mapper(plan).run();
}

} // namespace merganser
