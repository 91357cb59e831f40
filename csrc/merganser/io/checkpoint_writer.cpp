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
  struct Place {
    SafetensorsWriter* writer;
    std::string name; // in its file
  };

  const Place& place(const std::string& name) const {
    const auto found = places.find(name);
    if (found == places.end()) {
      throw Error(fmt::format(
          "{}: tensor {}: was not declared", folder.string(), quote(name)));
    }
    return found->second;
  }

  // Adds a file with tensors whose names begin with a prefix, without it.
  void add(
      const fs::path& file,
      const std::vector<TensorInfo>& tensors,
      size_t prefix = 0);

  fs::path folder;
  Metadata metadata;
  Appearance how;
  CheckpointIndex index; // of the shards
  std::vector<std::unique_ptr<SafetensorsWriter>> writers;
  std::unordered_map<std::string, Place> places;
};

void CheckpointWriter::Impl::add(
    const fs::path& file,
    const std::vector<TensorInfo>& tensors,
    size_t prefix) {
  std::vector<TensorInfo> stored = tensors;
  for (TensorInfo& tensor : stored) {
    tensor.name.erase(0, prefix);
  }
  writers.push_back(std::make_unique<SafetensorsWriter>(
      folder / file, stored, metadata, how));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Place place = {writers.back().get(), stored[i].name};
    if (!places.emplace(tensors[i].name, place).second) {
      throw InputError(fmt::format(
          "{}: tensor {}: declared twice",
          folder.string(),
          quote(tensors[i].name)));
    }
  }
}

CheckpointWriter::CheckpointWriter(
    const fs::path& folder,
    std::vector<TensorInfo> tensors,
    const Metadata& metadata,
    uint64_t shard_bytes,
    Appearance how,
    const std::vector<fs::path>& modules)
    : impl_(std::make_unique<Impl>()) {
  impl_->folder = folder;
  impl_->metadata = metadata;
  impl_->metadata.emplace("format", "pt");
  impl_->how = how;
  for (const fs::path& module : modules) {
    const std::string prefix = module.generic_string() + "/";
    const auto of_module =
        std::ranges::stable_partition(tensors, [&](const TensorInfo& tensor) {
          return !tensor.name.starts_with(prefix);
        });
    if (!of_module.empty()) {
      fs::create_directories(folder / module);
      impl_->add(
          module / "model.safetensors",
          {of_module.begin(), of_module.end()},
          prefix.size());
    }
    tensors.erase(of_module.begin(), of_module.end());
  }
  const auto shards = split(std::move(tensors), shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    impl_->add(name, shards[i]);
    if (shards.size() > 1) {
      for (const TensorInfo& tensor : shards[i]) {
        impl_->index.shard_of.emplace(tensor.name, name);
        impl_->index.total_size += tensor.bytes();
      }
    }
  }
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::write(
    const std::string& name,
    std::span<const std::byte> data,
    uint64_t offset) {
  const Impl::Place& place = impl_->place(name);
  place.writer->write(place.name, data, offset);
}

void CheckpointWriter::skip(const std::string& name) {
  const Impl::Place& place = impl_->place(name);
  place.writer->skip(place.name);
}

void CheckpointWriter::finish() {
  for (const auto& writer : impl_->writers) {
    writer->finish();
  }
  // Written last: the index turns the shards into a checkpoint.
  if (!impl_->index.shard_of.empty()) {
    write_file(
        impl_->folder / "model.safetensors.index.json",
        format_checkpoint_index(impl_->index));
  }
}

} // namespace merganser
