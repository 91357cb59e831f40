#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "merganser/merge/chunk_reader.h"
#include "merganser/merge/value_errors.h"

namespace merganser {

// Reads a whole tensor as float64: calls use(i, x) for every element x.
template <typename Use>
void read_elements(const TensorSource& source, const Use& use) {
  ChunkReader<double> reader;
  const int64_t n = source.tensor.info().numel();
  for (int64_t index = 0; index < chunk_count(n); ++index) {
    const Chunk chunk = chunk_at(n, index);
    Digest ignored;
    reader.read(std::span(&source, 1), chunk, std::span(&ignored, 1));
    for (int64_t i = 0; i < chunk.n; ++i) {
      use(chunk.begin + i, reader.values(0)[i]);
    }
  }
}

// The same for the weight of a linear layer. Throws InputError for a value that
// is not finite.
template <typename Use>
void read_weight(const TensorSource& source, const Use& use) {
  read_elements(source, [&](int64_t i, double x) {
    if (!std::isfinite(x)) {
      check_update(source);
      refuse_value(
          source.tensor, x, i, "the weights of a linear layer must be finite");
    }
    use(i, x);
  });
}

} // namespace merganser
