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
#include "merganser/io/factored_tensor.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/sentence_modules.h"

namespace fs = std::filesystem;

namespace merganser {
namespace {

std::string without(const std::string& name, std::string_view ending) {
  return name.substr(0, name.size() - ending.size());
}

} // namespace

struct Checkpoint::Impl {
  struct Place {
    size_t tensor; // index into `tensors`
    size_t file; // index into `files`
    const FactoredTensor* factored = nullptr; // one of `factored`
    // Characters of the name that are the directory of a module.
    size_t prefix = 0;
  };

  void add(SafetensorsFile file, const CheckpointIndex* index);
  void add_module(const fs::path& folder);
  void check_index(const fs::path& index_path, const CheckpointIndex& index)
      const;
  void add_factored(const SafetensorsFile& file, const std::string& name);
  const Place& place(const std::string& name) const;

  fs::path path;
  std::vector<SafetensorsFile> files;
  std::vector<fs::path> modules;
  std::vector<TensorInfo> tensors;
  std::vector<std::string> left_out;
  std::vector<std::unique_ptr<FactoredTensor>> factored;
  std::unordered_map<std::string, Place> places;
};

void Checkpoint::Impl::add(SafetensorsFile file, const CheckpointIndex* index) {
  const std::string shard = file.path().filename().string();
  const bool factored =
      storage_of(file.metadata()) == storage_name(FisherStorage::kFactored);
  for (const TensorInfo& tensor : file.tensors()) {
    if (index != nullptr) {
      const auto named = index->shard_of.find(tensor.name);
      if (named == index->shard_of.end() || named->second != shard) {
        left_out.push_back(fmt::format("{} in {}", quote(tensor.name), shard));
        continue;
      }
    }
    if (factored && tensor.name.ends_with(kRowMeans)) {
      add_factored(file, without(tensor.name, kRowMeans));
    } else if (factored && tensor.name.ends_with(kColumnMeans)) {
      // Added with its row means, which have to exist.
      static_cast<void>(
          file.at(without(tensor.name, kColumnMeans) + kRowMeans));
    } else {
      places.emplace(tensor.name, Place{tensors.size(), files.size()});
      tensors.push_back(tensor);
    }
  }
  files.push_back(std::move(file));
}

void Checkpoint::Impl::add_module(const fs::path& folder) {
  SafetensorsFile file(path / folder / "model.safetensors");
  const std::string prefix = folder.generic_string() + "/";
  for (TensorInfo tensor : file.tensors()) {
    tensor.name.insert(0, prefix);
    const Place place = {
        tensors.size(), files.size(), /*factored=*/nullptr, prefix.size()};
    if (!places.emplace(tensor.name, place).second) {
      throw InputError(fmt::format(
          "{}: has two tensors {}", path.string(), quote(tensor.name)));
    }
    tensors.push_back(std::move(tensor));
  }
  files.push_back(std::move(file));
  modules.push_back(folder);
}

// Adds the tensor that two tensors of `file` stand for, the next of `files`.
void Checkpoint::Impl::add_factored(
    const SafetensorsFile& file,
    const std::string& name) {
  if (file.find(name) != nullptr) {
    throw InputError(fmt::format(
        "{}: tensor {} is stored both whole and factored",
        file.path().string(),
        quote(name)));
  }
  factored.push_back(std::make_unique<FactoredTensor>(
      name, file.at(name + kRowMeans), file.at(name + kColumnMeans)));
  const FactoredTensor* added = factored.back().get();
  places.emplace(name, Place{tensors.size(), files.size(), added});
  tensors.push_back(added->info());
}

void Checkpoint::Impl::check_index(
    const fs::path& index_path,
    const CheckpointIndex& index) const {
  for (const auto& [name, shard] : index.shard_of) {
    const auto named = std::ranges::find(index.shards, shard);
    if (files[named - index.shards.begin()].find(name) == nullptr) {
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
  if (is_checkpoint_index(weights)) {
    const CheckpointIndex index = read_checkpoint_index(weights);
    for (const std::string& shard : index.shards) {
      impl_->add(SafetensorsFile(weights.parent_path() / shard), &index);
    }
    impl_->check_index(weights, index);
  } else {
    impl_->add(SafetensorsFile(weights), nullptr);
  }
  for (const fs::path& module : modules_with_weights(path)) {
    impl_->add_module(module);
  }
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

const std::vector<fs::path>& Checkpoint::modules() const {
  return impl_->modules;
}

const fs::path& Checkpoint::file_of(const std::string& name) const {
  return impl_->files[impl_->place(name).file].path();
}

StoredTensor Checkpoint::at(const std::string& name) const {
  const Impl::Place& place = impl_->place(name);
  if (place.factored != nullptr) {
    return StoredTensor(*place.factored);
  }
  return impl_->files[place.file]
      .at(name.substr(place.prefix))
      .named(impl_->tensors[place.tensor]);
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
