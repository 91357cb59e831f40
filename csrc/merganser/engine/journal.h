#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "merganser/io/content_hash.h"

namespace merganser {

// What a merge keeps of a tensor that is written; a line of its journal.
struct FinishedTensor {
  size_t tensor = 0; // in plan.tensors
  int64_t clamped = 0; // elements whose denominator was clamped
  int64_t nonfinite = 0; // elements of the result
  std::vector<Digest> digests; // of its sources and of the results

  std::string to_line() const;
  static FinishedTensor parse(const std::string& line);
};

} // namespace merganser
