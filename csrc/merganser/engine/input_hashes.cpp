#include "merganser/engine/input_hashes.h"

#include "merganser/base/parallel.h"

namespace merganser {

InputHashes::InputHashes(const MergePlan& plan) : plan_(plan) {
  for (const auto& input : plan.inputs) {
    digests_.emplace_back(input->tensors().size());
  }
}

void InputHashes::add(size_t tensor, std::span<const Digest> digests) {
  const std::lock_guard lock(mutex_); // slices can use a tensor twice
  const TensorPlan& plan = plan_.tensors[tensor];
  for (size_t s = 0; s < digests.size(); ++s) {
    const TensorSource& source = plan.sources[s];
    const Checkpoint& checkpoint = *plan_.inputs[source.input];
    const TensorInfo* info = checkpoint.find(source.tensor.info().name);
    digests_[source.input][info - checkpoint.tensors().data()] = digests[s];
  }
}

std::vector<std::string> InputHashes::finish(int threads) {
  struct Unread {
    size_t input;
    size_t tensor;
  };
  std::vector<Unread> unread;
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    for (size_t t = 0; t < digests_[i].size(); ++t) {
      if (!digests_[i][t]) {
        unread.push_back({i, t});
      }
    }
  }
  parallel_for(threads, std::ssize(unread), [&](int64_t k, int) {
    const auto [i, t] = unread[k];
    const Checkpoint& checkpoint = *plan_.inputs[i];
    digests_[i][t] = hash_tensor(checkpoint.at(checkpoint.tensors()[t].name));
  });
  std::vector<std::string> hashes;
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    std::vector<Digest> digests;
    for (const auto& digest : digests_[i]) {
      digests.push_back(*digest);
    }
    hashes.push_back(
        plan_.inputs[i]->head_hash() +
        hash_tensors(plan_.inputs[i]->tensors(), digests));
  }
  return hashes;
}

} // namespace merganser
