#pragma once

#include <cstdint>
#include <map>

namespace merganser {

// Which parts of a file were written: disjoint ranges [begin, end), neighbours
// joined, so that a file written in order is always one range.
class ByteRanges {
 public:
  // False, and nothing changes, when a part of it is there already.
  bool add(uint64_t begin, uint64_t end);

  // The first byte from 0 on that is missing.
  uint64_t first_missing() const;

 private:
  std::map<uint64_t, uint64_t> ranges_; // begin -> end
};

} // namespace merganser
