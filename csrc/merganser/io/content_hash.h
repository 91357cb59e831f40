#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"

namespace merganser {

// What a checkpoint's content hash is made of. It does not depend on sharding,
// on the order in the files or on metadata, and its parts may be taken in any
// order, by several threads, while the data pass by for another purpose:
//
//   a tensor is cut into blocks of kHashBlock elements (the last may be
//   shorter); its digest is xxh3-128 of their xxh3-128 digests;
//   the content hash is 64 hexadecimal digits: first xxh3-128 of all tensors'
//   names, dtypes, shapes and first kHashHead bytes, then xxh3-128 of their
//   names, dtypes, shapes and digests, in the order of their names.
//
// The first half tells other weights apart without reading them all.
inline constexpr int64_t kHashBlock = 16384;
inline constexpr uint64_t kHashHead = 4096;

struct Digest {
  uint64_t high = 0;
  uint64_t low = 0;
  bool operator==(const Digest&) const = default;
};

MERGANSER_API Digest hash_bytes(std::span<const std::byte> data);

// Of a tensor, from its blocks' digests.
MERGANSER_API Digest combine_digests(std::span<const Digest> blocks);

// 32 hexadecimal digits.
MERGANSER_API std::string digest_text(const Digest& digest);

int64_t hash_blocks(const TensorInfo& tensor); // how many
Digest hash_tensor(const StoredTensor& tensor); // reads it

// One half of a content hash: a digest per tensor.
std::string hash_tensors(
    const std::vector<TensorInfo>& tensors,
    std::span<const Digest> digests);

} // namespace merganser
