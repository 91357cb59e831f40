#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "merganser/io/content_hash.h"
#include "merganser/plan/plan.h"

namespace merganser {

// The content hashes of a merge's inputs, from digests of what it reads anyway.
class InputHashes {
 public:
  explicit InputHashes(const MergePlan& plan);

  // Of a tensor of plan.tensors: what was read, one digest per source. May be
  // called from several threads.
  void add(size_t tensor, std::span<const Digest> digests);

  // Of plan.inputs; reads the tensors that the merge did not.
  std::vector<std::string> finish(int threads);

 private:
  const MergePlan& plan_;
  std::mutex mutex_;
  std::vector<std::vector<std::optional<Digest>>> digests_; // [input][tensor]
};

} // namespace merganser
