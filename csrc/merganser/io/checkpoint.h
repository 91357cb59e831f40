#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"

namespace merganser {

// The tensors of a model or Fisher: one .safetensors file, an index file
// (*.safetensors.index.json), or a directory with model.safetensors, with
// model.safetensors.index.json and its shards, or with any single index or
// .safetensors file, in this order. The index decides which shard a tensor is
// read from; what it does not name is left out. A directory of
// sentence-transformers also has the tensors of its modules, named with their
// directory ("2_Dense/linear.weight"). A tensor of a factored Fisher appears as
// the whole that its two factors stand for. Throws InputError naming what is
// missing.
class MERGANSER_API Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& path);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;

  const std::filesystem::path& path() const; // the argument
  const std::vector<TensorInfo>& tensors() const; // in the order of the files
  const TensorInfo* find(const std::string& name) const; // nullptr: absent
  const Metadata& metadata() const; // the first shard's
  std::vector<std::filesystem::path> files() const;
  // Tensors of the shards that the index does not name: "'w' in x.safetensors".
  const std::vector<std::string>& left_out() const;
  const std::filesystem::path& file_of(const std::string& name) const;
  // The modules' directories, in the checkpoint's.
  const std::vector<std::filesystem::path>& modules() const;

  StoredTensor at(const std::string& name) const; // throws InputError
  void read(
      const std::string& name,
      std::span<std::byte> out,
      uint64_t offset = 0) const {
    at(name).read(out, offset);
  }

  // The hash of io/content_hash.h, which reads all data, and its first half,
  // which reads the first bytes of every tensor.
  std::string content_hash() const;
  std::string head_hash() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Writes `tensors` into an existing directory: model.safetensors, or shards of
// at most shard_bytes (a larger tensor gets its own) with
// model.safetensors.index.json; those named with one of the directories
// `modules` into a model.safetensors there. Data may arrive in any order, in
// parts and from several threads; no file appears before finish(), which checks
// that all data were written. Adds "format": "pt" to the metadata, which
// transformers requires.
class MERGANSER_API CheckpointWriter {
 public:
  CheckpointWriter(
      const std::filesystem::path& folder,
      std::vector<TensorInfo> tensors,
      const Metadata& metadata,
      uint64_t shard_bytes = UINT64_MAX,
      Appearance how = Appearance::kWhenWhole,
      const std::vector<std::filesystem::path>& modules = {});
  ~CheckpointWriter();

  void write(
      const std::string& name,
      std::span<const std::byte> data,
      uint64_t offset = 0);
  void skip(const std::string& name); // see SafetensorsWriter
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace merganser
