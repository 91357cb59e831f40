#include "merge/input_hashes.h"

#include <algorithm>

#include "io/parallel.h"

namespace merganser {

InputHashes::InputHashes(const MergePlan& plan)
    : plan_(plan), inputs_(plan.inputs()) {
  const auto find = [&](const Checkpoint* checkpoint) -> size_t {
    return std::ranges::find(inputs_, checkpoint) - inputs_.begin();
  };
  for (const MergeSource& source : plan.sources()) {
    input_of_.push_back(find(source.checkpoint));
  }
  reference_ = find(&plan.reference_weights());
  for (const Checkpoint* input : inputs_) {
    digests_.emplace_back(input->tensors().size());
  }
}

void InputHashes::add(size_t tensor, std::span<const Digest> digests) {
  const TensorPlan& row = plan_.tensors[tensor];
  for (size_t s = 0; s < digests.size(); ++s) {
    const size_t input =
        row.action == TensorAction::kCopy ? reference_ : input_of_[s];
    const Checkpoint& checkpoint = *inputs_[input];
    const TensorInfo* info = checkpoint.find(row.sources[s].info().name);
    digests_[input][info - checkpoint.tensors().data()] = digests[s];
  }
}

std::vector<std::string> InputHashes::finish(int threads) {
  struct Unread {
    size_t input;
    size_t tensor;
  };
  std::vector<Unread> unread;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    for (size_t t = 0; t < digests_[i].size(); ++t) {
      if (!digests_[i][t]) {
        unread.push_back({i, t});
      }
    }
  }
  parallel_for(threads, std::ssize(unread), [&](int64_t k, int) {
    const auto [i, t] = unread[k];
    const Checkpoint& checkpoint = *inputs_[i];
    digests_[i][t] = hash_tensor(checkpoint.at(checkpoint.tensors()[t].name));
  });
  std::vector<std::string> hashes;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    std::vector<Digest> digests;
    for (const auto& digest : digests_[i]) {
      digests.push_back(*digest);
    }
    hashes.push_back(
        inputs_[i]->head_hash() + hash_tensors(inputs_[i]->tensors(), digests));
  }
  return hashes;
}

} // namespace merganser
