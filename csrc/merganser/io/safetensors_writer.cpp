#include <algorithm>
#include <mutex>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/byte_ranges.h"
#include "merganser/io/safetensors.h"
#include "merganser/io/safetensors_header.h"

namespace merganser {

struct SafetensorsWriter::Impl {
  Impl(const std::filesystem::path& p, SafetensorsHeader h, Appearance how);

  [[noreturn]] void fail(const std::string& name, const std::string& what) {
    throw Error(
        fmt::format("{}: tensor {}: {}", path.string(), quote(name), what));
  }

  OutputFile& file() {
    return plain ? *plain : atomic->file();
  }

  std::filesystem::path path;
  SafetensorsHeader header;
  std::unordered_map<std::string, size_t> index;
  uint64_t data = 0; // offset of the tensors' data
  std::optional<AtomicFile> atomic; // one of the two
  std::optional<OutputFile> plain;
  std::mutex mutex; // guards `written` and `unstored`
  uint64_t unstored = 0; // bytes since start_storing()
  ByteRanges written; // relative to `data`
};

namespace {

constexpr uint64_t kStoreBytes = uint64_t{8} << 20; // between start_storing()s
constexpr uint64_t kLargestData = uint64_t{1} << 62; // fits a file offset

SafetensorsHeader lay_out(
    std::vector<TensorInfo> tensors,
    const Metadata& metadata) {
  // Each size divides the ones before it, so that every tensor is aligned.
  // (Sub-byte types come last and need no alignment.)
  std::ranges::stable_sort(
      tensors, std::greater<>(), [](const TensorInfo& tensor) {
        return dtype_bits(tensor.dtype);
      });
  SafetensorsHeader header;
  header.metadata = metadata;
  uint64_t end = 0;
  for (TensorInfo& tensor : tensors) {
    const uint64_t begin = end;
    end += tensor.bytes(); // cannot overflow: each is below 2^61
    if (end > kLargestData) {
      throw InputError(fmt::format(
          "tensor {}: all tensors together exceed 2^62 bytes",
          quote(tensor.name)));
    }
    header.tensors.push_back({std::move(tensor), begin, end});
  }
  return header;
}

} // namespace

SafetensorsWriter::Impl::Impl(
    const std::filesystem::path& p,
    SafetensorsHeader h,
    Appearance how)
    : path(p), header(std::move(h)) {
  for (const PlacedTensor& tensor : header.tensors) {
    const std::string& name = tensor.info.name;
    if (name == "__metadata__" || !index.emplace(name, index.size()).second) {
      throw InputError(fmt::format(
          "{}: tensor {}: {}",
          path.string(),
          quote(name),
          name == "__metadata__" ? "the format reserves this name"
                                 : "declared twice"));
    }
  }
  const std::string text = format_safetensors_header(header, path.string());
  data = text.size();
  if (how == Appearance::kWhenWhole) {
    atomic.emplace(path);
  } else {
    plain.emplace(path, OutputFile::Mode::kKeep);
  }
  file().reserve(
      data + (header.tensors.empty() ? 0 : header.tensors.back().end));
  file().write_at(0, text.data(), text.size());
}

SafetensorsWriter::SafetensorsWriter(
    const std::filesystem::path& path,
    std::vector<TensorInfo> tensors,
    const Metadata& metadata,
    Appearance how)
    : impl_(std::make_unique<Impl>(
          path,
          lay_out(std::move(tensors), metadata),
          how)) {}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(
    const std::string& name,
    std::span<const std::byte> data,
    uint64_t offset) {
  const auto found = impl_->index.find(name);
  if (found == impl_->index.end()) {
    impl_->fail(name, "was not declared");
  }
  const PlacedTensor& tensor = impl_->header.tensors[found->second];
  const uint64_t size = tensor.end - tensor.begin;
  if (offset > size || data.size() > size - offset) {
    impl_->fail(
        name,
        fmt::format(
            "bytes {} to {} were written, but it has {}",
            offset,
            offset + data.size(),
            size));
  }
  const uint64_t begin = tensor.begin + offset;
  bool store = false;
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->written.add(begin, begin + data.size())) {
      impl_->fail(name, "the same bytes were written twice");
    }
    impl_->unstored += data.size();
    store = impl_->unstored >= kStoreBytes;
    impl_->unstored = store ? 0 : impl_->unstored;
  }
  impl_->file().write_at(impl_->data + begin, data.data(), data.size());
  if (store) {
    impl_->file().start_storing();
  }
}

void SafetensorsWriter::skip(const std::string& name) {
  const auto found = impl_->index.find(name);
  if (found == impl_->index.end()) {
    impl_->fail(name, "was not declared");
  }
  const PlacedTensor& tensor = impl_->header.tensors[found->second];
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->written.add(tensor.begin, tensor.end)) {
    impl_->fail(name, "the same bytes were written twice");
  }
}

void SafetensorsWriter::finish() {
  const uint64_t missing = impl_->written.first_missing();
  for (const PlacedTensor& tensor : impl_->header.tensors) {
    if (missing < tensor.end) {
      impl_->fail(
          tensor.info.name,
          fmt::format("byte {} was not written", missing - tensor.begin));
    }
  }
  if (impl_->plain) {
    impl_->plain->close();
  } else {
    impl_->atomic->commit();
  }
}

} // namespace merganser
