#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace merganser {

// The merges of a byte-pair encoding by the ids of their two sides: a hash
// table without pointers, since every pair of every new word is looked up.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank; // lower is earlier
    int32_t id; // the joined token
  };

  explicit MergeTable(size_t count);

  // Replaces an earlier merge of the same pair.
  void add(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0}; // ids are not negative

  size_t slot_of(uint64_t pair) const;

  std::vector<Slot> slots_; // a power of two, at least half of it empty
};

} // namespace merganser
