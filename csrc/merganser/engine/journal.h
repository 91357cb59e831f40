#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "merganser/io/content_hash.h"

namespace merganser {

// Record of a tensor that has been written: a line of the journal.
struct FinishedTensor {
  size_t tensor = 0; // position in MergePlan::tensors
  int64_t clamped = 0; // as in MergeFindings
  double largest_weight = 0; // likewise
  int64_t nonfinite = 0; // elements of the result
  std::vector<Digest> digests; // of the sources and results

  std::string to_line() const;
  static FinishedTensor parse(const std::string& line);
};

} // namespace merganser
