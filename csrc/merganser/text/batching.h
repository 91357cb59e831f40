#pragma once

#include <cstdint>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Token ids padded to the longest example of the batch.
struct MERGANSER_API Batch {
  int64_t size = 0; // B
  int64_t length = 0; // L
  std::vector<int64_t> input_ids; // (B, L), pad_id after each example's end
  std::vector<int64_t> token_types; // (B, L); empty: all 0
  std::vector<int64_t> lengths; // (B)
  std::vector<int64_t> labels; // (B)
  std::vector<int64_t> indices; // (B) positions in the data set
};

MERGANSER_API Batch make_batch(
    const Dataset& data,
    const std::vector<int64_t>& indices,
    int32_t pad_id);

// The items in an order that depends on (seed, stream) only, the same on every
// machine. Streams from 2^61 on are for the functions below.
MERGANSER_API std::vector<int64_t> shuffled(
    std::vector<int64_t> items,
    uint64_t seed,
    uint64_t stream);

// The batches of an epoch for training: a shuffle of all examples keyed by
// (seed, epoch), split into windows of 50 batches that are sorted by length,
// split into batches, and the batches shuffled again: little padding, random
// order. One batch may be smaller. The same on every machine. Throws InputError
// for a batch size below 1.
MERGANSER_API std::vector<std::vector<int64_t>> training_batches(
    const Dataset& data,
    int64_t batch_size,
    uint64_t seed,
    int64_t epoch);

// Batches of all examples, or of those at the positions in `subset`, longest
// first, for evaluation and Fishers.
MERGANSER_API std::vector<std::vector<int64_t>> sorted_batches(
    const Dataset& data,
    int64_t batch_size);
MERGANSER_API std::vector<std::vector<int64_t>> sorted_batches(
    const Dataset& data,
    int64_t batch_size,
    std::vector<int64_t> subset);

// `count` distinct positions of a data set of `size`, ascending, drawn by a
// shuffle keyed by `seed`; all of them when count < 0 or count >= size.
MERGANSER_API std::vector<int64_t> draw_subset(
    int64_t size,
    int64_t count,
    uint64_t seed);

} // namespace merganser
