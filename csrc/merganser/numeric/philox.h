#pragma once

#include <cstdint>

#include "merganser/numeric/host_device.h"

namespace merganser {

// Random numbers as a function of a counter: the same (seed, stream, index)
// gives the same number on every compiler, thread and device, and any number
// can be computed without those before it. Philox4x32-10 of Salmon, Moraes,
// Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
struct PhiloxBlock {
  uint32_t word[4];
};

struct PhiloxKey {
  uint32_t word[2];
};

MERGANSER_HOST_DEVICE constexpr PhiloxBlock philox4x32_10(
    PhiloxBlock counter,
    PhiloxKey key) {
  uint32_t c0 = counter.word[0], c1 = counter.word[1];
  uint32_t c2 = counter.word[2], c3 = counter.word[3];
  uint32_t k0 = key.word[0], k1 = key.word[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u; // golden ratio
    k1 += 0xBB67AE85u; // sqrt(3) - 1
  }
  return {{c0, c1, c2, c3}};
}

// 128 random bits. `stream` separates uses that share a seed (an epoch, the
// number of a sample), `index` counts within one (an example's position).
MERGANSER_HOST_DEVICE constexpr PhiloxBlock philox(
    uint64_t seed,
    uint64_t stream,
    uint64_t index) {
  return philox4x32_10(
      {{static_cast<uint32_t>(index),
        static_cast<uint32_t>(index >> 32),
        static_cast<uint32_t>(stream),
        static_cast<uint32_t>(stream >> 32)}},
      {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}});
}

// 64 random bits.
MERGANSER_HOST_DEVICE constexpr uint64_t philox_u64(
    uint64_t seed,
    uint64_t stream,
    uint64_t index) {
  const PhiloxBlock block = philox(seed, stream, index);
  return uint64_t{block.word[1]} << 32 | block.word[0];
}

} // namespace merganser
