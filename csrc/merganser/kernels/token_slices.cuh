#pragma once

// Copies the tokens of some examples to shared memory, slice by slice; tokens
// without a gradient are skipped.

#include "merganser/kernels/device.cuh"
#include "merganser/kernels/product_tiles.cuh"

namespace merganser::kernels {

// Slices per operand: 48 KiB for both, the limit of every device.
constexpr int kStages = 3;

template <typename In>
struct Stages {
  Slice<In> output[kStages];
  Slice<In> input[kStages];
};

// A matrix (examples, tokens, width) and the first column of a tile in it.
template <typename In>
struct Operand {
  const In* __restrict__ data;
  int64_t width;
  bool aligned; // packs can be copied whole
  int64_t column;
};

// The current slice in the token lists of the examples [example, end).
template <int kTokens>
struct Position {
  const int* __restrict__ lists; // (examples, 1 + tokens): count, tokens
  int64_t tokens;
  int64_t example;
  int64_t end;
  int first = 0;
  int count = 0;

  __device__ Position(
      const int* lists,
      int64_t tokens,
      int64_t begin,
      int64_t end)
      : lists(lists), tokens(tokens), example(begin), end(end) {
    find_example();
  }
  __device__ void find_example() {
    while (example < end && (count = lists[example * (tokens + 1)]) == 0) {
      ++example;
    }
  }
  __device__ bool done() const {
    return example >= end;
  }
  __device__ bool ends_example() const {
    return first + kTokens >= count;
  }
  __device__ void advance() {
    first += kTokens;
    if (first >= count) {
      first = 0;
      ++example;
      find_example();
    }
  }
  // Row of the k-th token of the slice in (examples * tokens, width), or -1.
  __device__ int64_t row(int k) const {
    return !done() && first + k < count
        ? example * tokens + lists[example * (tokens + 1) + 1 + first + k]
        : -1;
  }
};

// One thread fetches kFetches packs of a slice, for the same tokens in both
// operands.
template <typename In>
struct Fetcher {
  using Own = Slice<In>;
  static constexpr int kStep = kTileThreads / Own::kPacks; // tokens
  static constexpr int kFetches = Own::kTokens / kStep;

  Position<Own::kTokens> next;
  int64_t rows[kFetches]; // read ahead, one slice early
  int pack = threadIdx.x % Own::kPacks;
  int token = threadIdx.x / Own::kPacks;

  __device__ explicit Fetcher(const Position<Own::kTokens>& begin)
      : next(begin) {
    look_up();
  }

  __device__ void look_up() {
#pragma unroll
    for (int i = 0; i < kFetches; ++i) {
      rows[i] = next.row(token + i * kStep);
    }
  }

  __device__ void fetch(const Operand<In>& operand, Own& slice) const {
    const int64_t column = operand.column + pack * Own::kPack;
#pragma unroll
    for (int i = 0; i < kFetches; ++i) {
      auto& to = slice.at(token + i * kStep, pack);
      const bool exists = rows[i] >= 0 && column < operand.width;
      const In* const from =
          operand.data + (exists ? rows[i] * operand.width + column : 0);
      if (operand.aligned) {
        copy_async<16>(&to, from, exists);
      } else {
#pragma unroll
        for (int k = 0; k < Own::kPack; ++k) {
          to.value[k] =
              exists && column + k < operand.width ? from[k] : In(0.0f);
        }
      }
    }
  }

  __device__ void fetch_both(
      const Operand<In>& output,
      const Operand<In>& input,
      Stages<In>& stages,
      int stage) {
    if (!next.done()) {
      fetch(output, stages.output[stage]);
      fetch(input, stages.input[stage]);
      next.advance();
      look_up();
    }
    commit_copies();
  }
};

} // namespace merganser::kernels
