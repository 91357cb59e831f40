#include "merganser/io/checkpoint.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/base/quote.h"
#include "merganser/io/checkpoint_index.h"
#include "merganser/io/content_hash.h"

namespace fs = std::filesystem;

namespace merganser {

struct Checkpoint::Impl {
  struct Place {
    size_t tensor; // index into `tensors`
    size_t file; // index into `files`
  };

  void add(SafetensorsFile file, const CheckpointIndex* index);
  void check_index(const fs::path& index_path, const CheckpointIndex& index)
      const;
  const Place& place(const std::string& name) const;

  fs::path path;
  std::vector<SafetensorsFile> files;
  std::vector<TensorInfo> tensors;
  std::vector<std::string> left_out;
  std::unordered_map<std::string, Place> places;
};

void Checkpoint::Impl::add(SafetensorsFile file, const CheckpointIndex* index) {
  const std::string shard = file.path().filename().string();
  for (const TensorInfo& tensor : file.tensors()) {
    if (index != nullptr) {
      const auto named = index->shard_of.find(tensor.name);
      if (named == index->shard_of.end() || named->second != shard) {
        left_out.push_back(fmt::format("{} in {}", quote(tensor.name), shard));
        continue;
      }
    }
    places.emplace(tensor.name, Place{tensors.size(), files.size()});
    tensors.push_back(tensor);
  }
  files.push_back(std::move(file));
}

void Checkpoint::Impl::check_index(
    const fs::path& index_path,
    const CheckpointIndex& index) const {
  for (const auto& [name, shard] : index.shard_of) {
    if (!places.contains(name)) {
      throw InputError(fmt::format(
          "{}: tensor {} is not in {}, which the index names for it",
          index_path.string(),
          quote(name),
          quote(shard)));
    }
  }
}

const Checkpoint::Impl::Place& Checkpoint::Impl::place(
    const std::string& name) const {
  const auto found = places.find(name);
  if (found == places.end()) {
    throw InputError(
        fmt::format("{}: has no tensor {}", path.string(), quote(name)));
  }
  return found->second;
}

Checkpoint::Checkpoint(const fs::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  const fs::path weights = fs::is_directory(path) ? find_weights(path) : path;
  if (!is_checkpoint_index(weights)) {
    impl_->add(SafetensorsFile(weights), nullptr);
    return;
  }
  const CheckpointIndex index = read_checkpoint_index(weights);
  for (const std::string& shard : index.shards) {
    impl_->add(SafetensorsFile(weights.parent_path() / shard), &index);
  }
  impl_->check_index(weights, index);
}

Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;

const fs::path& Checkpoint::path() const {
  return impl_->path;
}

const std::vector<TensorInfo>& Checkpoint::tensors() const {
  return impl_->tensors;
}

const TensorInfo* Checkpoint::find(const std::string& name) const {
  const auto found = impl_->places.find(name);
  return found == impl_->places.end() ? nullptr
                                      : &impl_->tensors[found->second.tensor];
}

const Metadata& Checkpoint::metadata() const {
  static const Metadata none;
  return impl_->files.empty() ? none : impl_->files.front().metadata();
}

std::vector<fs::path> Checkpoint::files() const {
  std::vector<fs::path> paths;
  for (const SafetensorsFile& file : impl_->files) {
    paths.push_back(file.path());
  }
  return paths;
}

const std::vector<std::string>& Checkpoint::left_out() const {
  return impl_->left_out;
}

const fs::path& Checkpoint::file_of(const std::string& name) const {
  return impl_->files[impl_->place(name).file].path();
}

StoredTensor Checkpoint::at(const std::string& name) const {
  return impl_->files[impl_->place(name).file].at(name);
}

std::string Checkpoint::head_hash() const {
  std::vector<Digest> digests;
  std::array<std::byte, kHashHead> buffer;
  for (const TensorInfo& tensor : impl_->tensors) {
    const auto head =
        std::span(buffer).first(std::min(kHashHead, tensor.bytes()));
    read(tensor.name, head);
    digests.push_back(hash_bytes(head));
  }
  return hash_tensors(impl_->tensors, digests);
}

std::string Checkpoint::content_hash() const {
  const std::vector<TensorInfo>& tensors = impl_->tensors;
  std::vector<Digest> digests(tensors.size());
  parallel_for(thread_count(0), std::ssize(tensors), [&](int64_t i, int) {
    digests[i] = hash_tensor(at(tensors[i].name));
  });
  return head_hash() + hash_tensors(tensors, digests);
}

} // namespace merganser
