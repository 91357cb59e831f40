#include "merganser/io/content_hash.h"

#include <fmt/format.h>
#include <xxhash.h>
#ifdef MERGANSER_XXHASH_DISPATCHES
#include <xxh_x86dispatch.h> // same names, widest vectors
#endif

#include <algorithm>
#include <numeric>

#include "merganser/io/hash.h"

namespace merganser {

Digest hash_bytes(std::span<const std::byte> data) {
  const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
  return {hash.high64, hash.low64};
}

Digest combine_digests(std::span<const Digest> blocks) {
  return hash_bytes(std::as_bytes(blocks));
}

std::string digest_text(const Digest& digest) {
  return fmt::format("{:016x}{:016x}", digest.high, digest.low);
}

int64_t hash_blocks(const TensorInfo& tensor) {
  return (tensor.numel() + kHashBlock - 1) / kHashBlock;
}

Digest hash_tensor(const StoredTensor& tensor) {
  const uint64_t block_bytes = kHashBlock * dtype_bits(tensor.info().dtype) / 8;
  const uint64_t size = tensor.info().bytes();
  std::vector<std::byte> buffer(std::min(block_bytes, size));
  std::vector<Digest> blocks;
  for (uint64_t offset = 0; offset < size; offset += block_bytes) {
    const auto block =
        std::span(buffer).first(std::min(block_bytes, size - offset));
    tensor.read(block, offset);
    blocks.push_back(hash_bytes(block));
  }
  return combine_digests(blocks);
}

std::string hash_tensors(
    const std::vector<TensorInfo>& tensors,
    std::span<const Digest> digests) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return tensors[i].name; });
  Hasher hasher;
  for (const size_t i : order) {
    hasher.update(tensors[i].name);
    hasher.update(dtype_name(tensors[i].dtype));
    hasher.update(tensors[i].shape_text());
    hasher.update(&digests[i], sizeof(Digest));
  }
  return hasher.digest();
}

} // namespace merganser
