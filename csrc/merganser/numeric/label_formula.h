#pragma once

// Draws one label from a row of class probabilities by inversion; the CPU and
// the CUDA kernel both call it and draw the same label.

#include <cmath>
#include <cstdint>

#include "merganser/numeric/host_device.h"
#include "merganser/numeric/philox.h"

namespace merganser {

// The first label at which the running sum of the row passes u times the whole
// sum, u uniform in [0, 1) and a function of (seed, sample, index) alone. A
// label of probability zero is never drawn. Returns -1 if the row is not a
// distribution: an entry is negative or not finite, or the sum is further than
// 1e-3 from 1.
template <typename T>
MERGANSER_HOST_DEVICE inline int64_t draw_label(
    const T* row,
    int64_t labels,
    uint64_t seed,
    uint64_t sample,
    uint64_t index) {
  double total = 0;
  for (int64_t k = 0; k < labels; ++k) {
    const double p = static_cast<double>(row[k]);
    if (!(p >= 0)) {
      return -1;
    }
    total += p;
  }
  if (!(std::abs(total - 1) <= 1e-3)) {
    return -1;
  }
  const double u =
      static_cast<double>(philox_u64(seed, sample, index) >> 11) * 0x1p-53;
  const double target = u * total; // < total, also when rounded
  double sum = 0;
  int64_t label = -1;
  do {
    sum += static_cast<double>(row[++label]);
  } while (!(sum > target));
  return label;
}

} // namespace merganser
