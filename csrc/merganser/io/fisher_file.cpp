#include "merganser/io/fisher_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/checkpoint.h"

namespace merganser {
namespace {

constexpr const char* kFormatVersion = "1";
constexpr const char* kTaskVector = "task_vector";
constexpr const char* kScale = "scale";
constexpr const char* kStorage = "storage";
constexpr const char* kAtModelHash = "at_model_hash";
constexpr const char* kAlong = "along";

constexpr std::pair<FisherStorage, std::string_view> kStorages[] = {
    {FisherStorage::kFloat32, "float32"},
    {FisherStorage::kBFloat16, "bfloat16"},
    {FisherStorage::kFactored, "factored"}};

class Reader {
 public:
  Reader(const Metadata& metadata, const std::filesystem::path& file)
      : metadata_(metadata), file_(file) {}

  const std::string& text(const char* key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) {
      throw InputError(fmt::format(
          "{}: the metadata key '{}' is missing; estimate the Fisher again",
          file_.string(),
          key));
    }
    return found->second;
  }

  template <typename Integer>
  Integer integer(const char* key, Integer min) const {
    const std::string& value = text(key);
    Integer number = 0;
    const char* end = value.data() + value.size();
    const auto result = std::from_chars(value.data(), end, number);
    if (result.ec != std::errc() || result.ptr != end || number < min) {
      throw InputError(fmt::format(
          "{}: the metadata key '{}' must be an integer of at least {}, not "
          "'{}'",
          file_.string(),
          key,
          min,
          value));
    }
    return number;
  }

  std::optional<FisherPoint> point() const {
    const auto found = metadata_.find(kAtModelHash);
    if (found == metadata_.end()) {
      return std::nullopt;
    }
    return FisherPoint{found->second, integer<int64_t>(kAlong, 0)};
  }

  FisherStorage storage() const {
    try {
      return parse_storage(storage_of(metadata_));
    } catch (const InputError& error) {
      throw InputError(fmt::format(
          "{}: {}; a newer Merganser may read it",
          file_.string(),
          error.what()));
    }
  }

 private:
  const Metadata& metadata_;
  const std::filesystem::path& file_;
};

} // namespace

FisherStorage parse_storage(std::string_view name) {
  for (const auto& [storage, its_name] : kStorages) {
    if (name == its_name) {
      return storage;
    }
  }
  throw InputError(fmt::format(
      "unknown storage '{}'; available: {}", name, storage_names()));
}

std::string_view storage_name(FisherStorage storage) {
  return kStorages[static_cast<size_t>(storage)].second;
}

std::string storage_names() {
  std::vector<std::string_view> names;
  for (const auto& [storage, name] : kStorages) {
    names.push_back(name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string_view storage_of(const Metadata& metadata) {
  const auto found = metadata.find(kStorage);
  return found == metadata.end() || !metadata.contains("format_version")
      ? storage_name(FisherStorage::kFloat32)
      : found->second;
}

std::string with_storage(
    const std::filesystem::path& path,
    std::string_view storage) {
  return storage == storage_name(FisherStorage::kFloat32)
      ? path.string()
      : fmt::format("{} ({})", path.string(), storage);
}

void read_fisher_values(
    const StoredTensor& fisher,
    std::span<float> out,
    int64_t begin) {
  const DType dtype = fisher.info().dtype;
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    throw InputError(fmt::format(
        "{}: tensor {} is {}; expected F32 or BF16",
        fisher.file().string(),
        quote(fisher.info().name),
        dtype_name(dtype)));
  }
  const uint64_t width = dtype_bits(dtype) / 8;
  if (dtype == DType::kF32) {
    fisher.read(std::as_writable_bytes(out), begin * width);
    return;
  }
  std::vector<std::byte> bytes(out.size() * width);
  fisher.read(bytes, begin * width);
  to_float32(dtype, bytes.data(), out.data(), out.size());
}

Metadata FisherMetadata::to_metadata() const {
  Metadata metadata = {
      {"format_version", kFormatVersion},
      {"estimator", estimator},
      {"num_examples", std::to_string(num_examples)},
      {"num_examples_used", std::to_string(num_examples_used)},
      {"samples", std::to_string(samples)},
      {"seed", std::to_string(seed)},
      {"labels", labels},
      {"base_model_hash", base_model_hash},
  };
  if (at) {
    metadata.emplace(kAtModelHash, at->model_hash);
    metadata.emplace(kAlong, std::to_string(at->along));
  }
  if (task_vector) {
    metadata.emplace(kTaskVector, task_vector->to_json());
  }
  if (scale) {
    metadata.emplace(kScale, scale->to_json());
  }
  if (storage != FisherStorage::kFloat32) {
    metadata.emplace(kStorage, storage_name(storage));
  }
  return metadata;
}

std::optional<FisherMetadata> FisherMetadata::parse(
    const Metadata& metadata,
    const std::filesystem::path& file) {
  const auto version = metadata.find("format_version");
  if (version == metadata.end()) {
    return std::nullopt;
  }
  if (version->second != kFormatVersion) {
    throw InputError(fmt::format(
        "{}: unknown Fisher format version '{}', expected {}; a newer "
        "Merganser may read it",
        file.string(),
        version->second,
        kFormatVersion));
  }
  const Reader reader(metadata, file);
  const auto hash = metadata.find("base_model_hash");
  const auto along = metadata.find(kTaskVector);
  const auto scale = metadata.find(kScale);
  return FisherMetadata{
      .estimator = reader.text("estimator"),
      .num_examples = reader.integer<int64_t>("num_examples", 1),
      .num_examples_used = reader.integer<int64_t>("num_examples_used", 1),
      .samples = reader.integer<int64_t>("samples", 0),
      .seed = reader.integer<uint64_t>("seed", 0),
      .labels = reader.text("labels"),
      .base_model_hash = hash == metadata.end() ? "" : hash->second,
      .at = reader.point(),
      .task_vector = along == metadata.end()
          ? std::nullopt
          : std::optional(TaskVectorStatistics::parse(along->second, file)),
      .scale = scale == metadata.end()
          ? std::nullopt
          : std::optional(FisherScale::parse(scale->second, file)),
      .storage = reader.storage()};
}

void copy_with_scale(
    const std::filesystem::path& from,
    const std::filesystem::path& to,
    const FisherScale& scale) {
  // The stored tensors, where a Checkpoint shows those that factors stand for.
  std::vector<SafetensorsFile> files;
  std::vector<TensorInfo> tensors;
  for (const auto& path : Checkpoint(from).files()) {
    files.emplace_back(path);
    std::ranges::copy(files.back().tensors(), std::back_inserter(tensors));
  }
  auto metadata = FisherMetadata::parse(files.front().metadata(), from);
  if (!metadata) {
    throw InputError(fmt::format(
        "{}: not a Fisher file of merganser: its metadata lacks "
        "'format_version'",
        from.string()));
  }
  metadata->scale = scale;
  Metadata entries = metadata->to_metadata();
  for (const auto& [key, value] : files.front().metadata()) {
    entries.emplace(key, value); // keys of others
  }
  SafetensorsWriter writer(to, std::move(tensors), entries);
  constexpr uint64_t kPart = 1 << 20;
  std::vector<std::byte> part;
  for (const SafetensorsFile& file : files) {
    for (const TensorInfo& tensor : file.tensors()) {
      const uint64_t bytes = tensor.bytes();
      for (uint64_t begin = 0; begin < bytes; begin += kPart) {
        part.resize(std::min(kPart, bytes - begin));
        file.read(tensor.name, part, begin);
        writer.write(tensor.name, part, begin);
      }
    }
  }
  writer.finish();
}

} // namespace merganser
