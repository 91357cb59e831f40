#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "merganser/merge/chunks.h"
#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Elements of a strip, which is written at once: writes below half a megabyte
// take up to twice the time.
inline constexpr int64_t kStripElements = 16 * kChunkElements;

struct Strip {
  size_t tensor = 0; // position in MergePlan::tensors
  Chunk elements;
  int64_t count = 0; // strips of the tensor
};

// The strips of some of a plan's tensors, one tensor after the other.
class StripList {
 public:
  StripList(const std::vector<TensorPlan>& plans, std::vector<size_t> tensors)
      : plans_(plans), tensors_(std::move(tensors)) {
    int64_t end = 0;
    for (const size_t tensor : tensors_) {
      end += chunk_count(plans_[tensor].output.numel(), kStripElements);
      ends_.push_back(end);
    }
  }

  int64_t size() const {
    return ends_.empty() ? 0 : ends_.back();
  }

  Strip operator[](int64_t i) const {
    const auto end = std::ranges::upper_bound(ends_, i);
    const size_t position = end - ends_.begin();
    const int64_t first = position == 0 ? 0 : ends_[position - 1];
    const size_t tensor = tensors_[position];
    const int64_t numel = plans_[tensor].output.numel();
    return {tensor, chunk_at(numel, i - first, kStripElements), *end - first};
  }

 private:
  const std::vector<TensorPlan>& plans_;
  std::vector<size_t> tensors_;
  std::vector<int64_t> ends_; // of each tensor's strips in the list
};

} // namespace merganser
