#pragma once

// Dropout's mask as a function of (seed, stream, position) alone: the CPU and
// the CUDA kernel both call it, no mask is stored, and the backward pass draws
// the same mask again.

#include <cmath>
#include <cstdint>

#include "merganser/numeric/host_device.h"
#include "merganser/numeric/philox.h"

namespace merganser {

// Elements, numbered in row-major order, form tiles of 8 rows of 16 lanes. A
// Philox block has 128 bits, 16 for each of the 8 elements of one lane: so 16
// blocks, drawn together, serve a tile, and a row of it takes one vector.
constexpr int kDropoutLanes = 16;
constexpr int kDropoutRows = 8;
constexpr int64_t kDropoutTile = kDropoutLanes * kDropoutRows;

MERGANSER_HOST_DEVICE constexpr PhiloxBlock dropout_block(
    uint64_t seed,
    uint64_t stream,
    int64_t tile,
    int lane) {
  return philox(
      seed, stream, static_cast<uint64_t>(tile) * kDropoutLanes + lane);
}

// Keeps an element if its 16 bits are at least `threshold`. T is float or
// double.
template <typename T>
struct DropoutScalars {
  uint32_t threshold; // probability of dropping, in units of 2^-16
  T scale; // 1 / probability of keeping

  MERGANSER_HOST_DEVICE T apply(T x, uint32_t word, int row) const {
    const uint32_t bits = word >> (16 * (row % 2)) & 0xffff;
    return bits >= threshold ? x * scale : T(0);
  }
};

// `scale` matches the rounded probability, so that the mean is preserved.
template <typename T>
DropoutScalars<T> make_dropout_scalars(double probability) {
  const double threshold = std::round(probability * 65536);
  return {
      static_cast<uint32_t>(threshold),
      static_cast<T>(1 / (1 - threshold / 65536))};
}

} // namespace merganser
