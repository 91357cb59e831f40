#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/api.h"
#include "io/safetensors.h"

namespace merganser {

// The tensors of a model or Fisher: one .safetensors file, or a folder with
// model.safetensors or with model.safetensors.index.json and its shards (also
// any single *.safetensors in a folder). The index is checked against the
// shards' headers. Throws InputError naming what is missing.
class MERGANSER_API Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& path);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;

  const std::filesystem::path& path() const;
  const std::vector<TensorInfo>& tensors() const; // in the order of the files
  const TensorInfo* find(const std::string& name) const;
  const Metadata& metadata() const; // of the first shard
  std::vector<std::filesystem::path> files() const;
  const std::filesystem::path& file_of(const std::string& name) const;

  void read(
      const std::string& name,
      std::span<std::byte> out,
      uint64_t offset = 0) const;

  // Hash of names, shapes, dtypes and data, independent of sharding.
  std::string content_hash() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Writes `tensors` into a folder: model.safetensors, or shards of at most
// shard_bytes with model.safetensors.index.json. Shards open one after the
// other: tensors must be written in the declared order.
class MERGANSER_API CheckpointWriter {
 public:
  CheckpointWriter(
      std::filesystem::path folder,
      std::vector<TensorInfo> tensors,
      const Metadata& metadata,
      uint64_t shard_bytes = UINT64_MAX);
  ~CheckpointWriter();

  void write(const std::string& name, std::span<const std::byte> data);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace merganser
