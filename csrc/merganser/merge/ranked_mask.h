#pragma once

#include <cstdint>
#include <vector>

#include "merganser/plan/tensor_plan.h"

namespace merganser {

// True if DELLA's choice precedes the merge, because rows are longer than a
// chunk and cannot be sorted chunk by chunk.
bool has_long_rows(const TensorInfo& tensor);

// Returns DELLA's choice among the elements of a model's task vector: bit i %
// 64 of word i / 64 is set if element i is kept. The chance of an element
// follows from its rank in its row; of equal magnitudes, the later ranks
// higher. Reads the tensor three times, and neither holds nor sorts a row.
template <typename T>
std::vector<uint64_t> mask_long_rows(
    const TensorPlan& tensor,
    size_t model,
    size_t output,
    int threads);

inline bool is_kept(const std::vector<uint64_t>& mask, int64_t element) {
  return (mask[element / 64] >> (element % 64) & 1) != 0;
}

// Size of the mask of one model in bytes; 0 for a tensor without long rows.
uint64_t mask_memory(const TensorInfo& tensor);

} // namespace merganser
