#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "merganser/io/content_hash.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Content hashes of a merge's inputs, from digests of the data that it reads.
class InputHashes {
 public:
  explicit InputHashes(const MergePlan& plan);

  // Adds the digests of a tensor of plan.tensors, one per source. Thread-safe.
  void add(size_t tensor, std::span<const Digest> digests);

  // Returns the hashes of plan.inputs; reads the tensors that the merge did
  // not.
  std::vector<std::string> finish(int threads);

 private:
  const MergePlan& plan_;
  std::mutex mutex_;
  std::vector<std::vector<std::optional<Digest>>> digests_; // [input][tensor]
};

} // namespace merganser
