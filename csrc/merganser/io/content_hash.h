#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"

namespace merganser {

// The content hash of a checkpoint. It does not depend on sharding, on the
// order in the files or on metadata, and its parts may be computed in any
// order, by several threads, while the data are read for another purpose:
//
//   a tensor is split into blocks of kHashBlock elements (the last may be
//   shorter); its digest is xxh3-128 of their xxh3-128 digests;
//   the content hash is 64 hexadecimal digits: first xxh3-128 of all tensors'
//   names, dtypes, shapes and first kHashHead bytes, then xxh3-128 of their
//   names, dtypes, shapes and digests, in the order of their names.
//
// The first half distinguishes weights without reading all of them.
inline constexpr int64_t kHashBlock = 16384;
inline constexpr uint64_t kHashHead = 4096;

struct Digest {
  uint64_t high = 0;
  uint64_t low = 0;
  bool operator==(const Digest&) const = default;
};

MERGANSER_API Digest hash_bytes(std::span<const std::byte> data);

// The digest of a tensor, from the digests of its blocks.
MERGANSER_API Digest combine_digests(std::span<const Digest> blocks);

// 32 hexadecimal digits.
MERGANSER_API std::string digest_text(const Digest& digest);

int64_t hash_blocks(const TensorInfo& tensor); // the number of blocks
Digest hash_tensor(const StoredTensor& tensor); // reads it

// One half of a content hash, from a digest per tensor.
std::string hash_tensors(
    const std::vector<TensorInfo>& tensors,
    std::span<const Digest> digests);

} // namespace merganser
