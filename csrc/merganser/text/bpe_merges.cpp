#include "merganser/text/bpe_merges.h"

#include <algorithm>
#include <bit>

namespace merganser {
namespace {

uint64_t key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 |
      static_cast<uint32_t>(right);
}

} // namespace

MergeTable::MergeTable(size_t count)
    : slots_(std::bit_ceil(2 * std::max<size_t>(count, 1))) {}

// The pair's slot, or the empty slot for it.
size_t MergeTable::slot_of(uint64_t pair) const {
  const uint64_t hash = pair * 0x9E3779B97F4A7C15; // golden ratio
  size_t slot = hash >> (65 - std::bit_width(slots_.size()));
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = key(left, right);
  slots_[slot_of(pair)] = {pair, merge};
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
  const uint64_t pair = key(left, right);
  const Slot& slot = slots_[slot_of(pair)];
  return slot.pair == pair ? &slot.merge : nullptr;
}

} // namespace merganser
