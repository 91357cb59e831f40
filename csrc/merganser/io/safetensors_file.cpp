#include <algorithm>
#include <array>
#include <unordered_map>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/factored_tensor.h"
#include "merganser/io/header_only.h"
#include "merganser/io/input_file.h"
#include "merganser/io/safetensors.h"
#include "merganser/io/safetensors_header.h"

namespace merganser {

struct SafetensorsFile::Impl {
  explicit Impl(const std::filesystem::path& path) : file(path) {}

  InputFile file;
  std::vector<TensorInfo> tensors;
  std::vector<uint64_t> begins; // offsets of the tensors in the file
  Metadata metadata;
  std::unordered_map<std::string, size_t> index;
};

namespace {

constexpr uint64_t kLengthBytes = 8;

// `size`: of the whole file.
uint64_t read_header_length(const InputFile& file, uint64_t size) {
  if (size < kLengthBytes) {
    throw InputError(fmt::format(
        "{}: has {} bytes, too few for a safetensors file",
        file.path().string(),
        size));
  }
  std::array<std::byte, kLengthBytes> bytes;
  file.read_at(0, bytes);
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) { // little endian
    length = length << 8 | std::to_integer<uint64_t>(bytes[i]);
  }
  if (length > kLargestHeader) {
    throw InputError(fmt::format(
        "{}: claims a header of {} bytes, but at most {} are allowed; this is "
        "not a safetensors file",
        file.path().string(),
        length,
        kLargestHeader));
  }
  if (length > size - kLengthBytes) {
    throw InputError(fmt::format(
        "{}: the header of {} bytes does not fit into the file's {}; the file "
        "is truncated, download it again",
        file.path().string(),
        length,
        size));
  }
  return length;
}

} // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : impl_(std::make_unique<Impl>(path)) {
  const InputFile& file = impl_->file;
  const uint64_t size = whole_size(path).value_or(file.size());
  const uint64_t length = read_header_length(file, size);
  std::string json(length, '\0');
  file.read_at(kLengthBytes, std::as_writable_bytes(std::span(json)));
  const uint64_t data = kLengthBytes + length;
  SafetensorsHeader header =
      parse_safetensors_header(json, size - data, file.path().string());
  for (PlacedTensor& tensor : header.tensors) {
    impl_->index.emplace(tensor.info.name, impl_->tensors.size());
    impl_->tensors.push_back(std::move(tensor.info));
    impl_->begins.push_back(data + tensor.begin);
  }
  impl_->metadata = std::move(header.metadata);
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;

const std::filesystem::path& SafetensorsFile::path() const {
  return impl_->file.path();
}

const std::vector<TensorInfo>& SafetensorsFile::tensors() const {
  return impl_->tensors;
}

const Metadata& SafetensorsFile::metadata() const {
  return impl_->metadata;
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto found = impl_->index.find(name);
  return found == impl_->index.end() ? nullptr : &impl_->tensors[found->second];
}

StoredTensor SafetensorsFile::at(const std::string& name) const {
  const auto found = impl_->index.find(name);
  if (found == impl_->index.end()) {
    throw InputError(
        fmt::format("{}: has no tensor {}", path().string(), quote(name)));
  }
  const size_t i = found->second;
  return {impl_->file, impl_->tensors[i], impl_->begins[i]};
}

StoredTensor::StoredTensor(const FactoredTensor& tensor)
    : factored_(&tensor), label_(&tensor.file()), info_(&tensor.info()) {}

const std::filesystem::path& StoredTensor::file() const {
  return file_ == nullptr ? *label_ : file_->path();
}

uint64_t StoredTensor::stored_bytes() const {
  return factored_ == nullptr ? info_->bytes() : factored_->stored_bytes();
}

void StoredTensor::read(std::span<std::byte> out, uint64_t offset) const {
  const uint64_t size = info_->bytes();
  if (offset > size || out.size() > size - offset) {
    throw InputError(fmt::format(
        "{}: tensor {}: bytes {} to {} were requested, but it has {}",
        file().string(),
        quote(info_->name),
        offset,
        offset + out.size(),
        size));
  }
  if (file_ != nullptr) {
    file_->read_at(begin_ + offset, out);
  } else if (factored_ != nullptr) {
    factored_->read(out, static_cast<int64_t>(offset / sizeof(float)));
  } else {
    std::ranges::copy(data_.subspan(offset, out.size()), out.begin());
  }
}

} // namespace merganser
