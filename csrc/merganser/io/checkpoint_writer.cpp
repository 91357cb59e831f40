#include <algorithm>
#include <mutex>
#include <unordered_map>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/checkpoint_index.h"

namespace fs = std::filesystem;

namespace merganser {

namespace {

// Fills each shard with as many consecutive tensors as fit.
std::vector<std::vector<TensorInfo>> split(
    std::vector<TensorInfo> tensors,
    uint64_t shard_bytes) {
  std::vector<std::vector<TensorInfo>> shards(1);
  uint64_t used = 0;
  for (TensorInfo& tensor : tensors) {
    const uint64_t size = tensor.bytes();
    if (!shards.back().empty() &&
        (used > shard_bytes || size > shard_bytes - used)) {
      shards.emplace_back();
      used = 0;
    }
    used += size;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string shard_name(size_t number, size_t count) {
  return count == 1
      ? "model.safetensors"
      : fmt::format("model-{:05}-of-{:05}.safetensors", number + 1, count);
}

} // namespace

struct CheckpointWriter::Impl {
  SafetensorsWriter& writer(const std::string& name) {
    const auto found = writer_of.find(name);
    if (found == writer_of.end()) {
      throw Error(fmt::format(
          "{}: tensor {}: was not declared", folder.string(), quote(name)));
    }
    return *found->second;
  }

  fs::path folder;
  CheckpointIndex index;
  std::vector<std::unique_ptr<SafetensorsWriter>> writers;
  std::unordered_map<std::string, SafetensorsWriter*> writer_of;
};

CheckpointWriter::CheckpointWriter(
    const fs::path& folder,
    std::vector<TensorInfo> tensors,
    const Metadata& metadata,
    uint64_t shard_bytes,
    Appearance how)
    : impl_(std::make_unique<Impl>()) {
  impl_->folder = folder;
  Metadata with_format = metadata;
  with_format.emplace("format", "pt");
  const auto shards = split(std::move(tensors), shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    impl_->writers.push_back(std::make_unique<SafetensorsWriter>(
        folder / name, shards[i], with_format, how));
    for (const TensorInfo& tensor : shards[i]) {
      if (!impl_->index.shard_of.emplace(tensor.name, name).second) {
        throw InputError(fmt::format(
            "{}: tensor {}: declared twice",
            folder.string(),
            quote(tensor.name)));
      }
      impl_->index.total_size += tensor.bytes();
      impl_->writer_of[tensor.name] = impl_->writers.back().get();
    }
  }
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::write(
    const std::string& name,
    std::span<const std::byte> data,
    uint64_t offset) {
  impl_->writer(name).write(name, data, offset);
}

void CheckpointWriter::skip(const std::string& name) {
  impl_->writer(name).skip(name);
}

void CheckpointWriter::finish() {
  for (const auto& writer : impl_->writers) {
    writer->finish();
  }
  // Written last: the index turns the shards into a checkpoint.
  if (impl_->writers.size() > 1) {
    write_file(
        impl_->folder / "model.safetensors.index.json",
        format_checkpoint_index(impl_->index));
  }
}

} // namespace merganser
