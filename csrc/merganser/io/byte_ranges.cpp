#include "merganser/io/byte_ranges.h"

#include <iterator>

namespace merganser {

bool ByteRanges::add(uint64_t begin, uint64_t end) {
  if (begin == end) {
    return true;
  }
  auto next = ranges_.lower_bound(begin);
  if (next != ranges_.end() && next->first < end) {
    return false;
  }
  auto previous = next == ranges_.begin() ? ranges_.end() : std::prev(next);
  if (previous != ranges_.end() && previous->second > begin) {
    return false;
  }
  if (next != ranges_.end() && next->first == end) {
    end = next->second;
    ranges_.erase(next);
  }
  if (previous != ranges_.end() && previous->second == begin) {
    previous->second = end;
  } else {
    ranges_.emplace(begin, end);
  }
  return true;
}

uint64_t ByteRanges::first_missing() const {
  const auto first = ranges_.begin();
  return first == ranges_.end() || first->first != 0 ? 0 : first->second;
}

} // namespace merganser
