#pragma once

#include <cstdint>
#include <map>

namespace merganser {

// The written parts of a file: disjoint ranges [begin, end). Adjacent ranges
// are joined, so that a file written in order is always one range.
class ByteRanges {
 public:
  // Returns false, without a change, if it overlaps a range.
  bool add(uint64_t begin, uint64_t end);

  // The first byte that was not added.
  uint64_t first_missing() const;

 private:
  std::map<uint64_t, uint64_t> ranges_; // begin -> end
};

} // namespace merganser
