#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/dtype.h"

namespace merganser {

struct MERGANSER_API TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  // Throw InputError for a negative dimension, a size beyond 64 bits, or (F4
  // and F6) a size that is not a whole number of bytes.
  int64_t numel() const;
  uint64_t bytes() const;
  std::string shape_text() const; // "[2, 3]"
  bool operator==(const TensorInfo&) const = default;
};

using Metadata = std::map<std::string, std::string>;

class FactoredTensor;
class InputFile;

// The place of a tensor's data, in a file or in memory, to read it in parts.
// Valid as long as the file or memory it refers to. A factored tensor's data
// are computed when they are read.
class MERGANSER_API StoredTensor {
 public:
  StoredTensor(const InputFile& file, const TensorInfo& info, uint64_t begin)
      : file_(&file), info_(&info), begin_(begin) {}
  // `label` is shown instead of a file.
  StoredTensor(
      std::span<const std::byte> data,
      const TensorInfo& info,
      const std::filesystem::path& label)
      : data_(data), label_(&label), info_(&info) {}
  explicit StoredTensor(const FactoredTensor& tensor);

  const TensorInfo& info() const {
    return *info_;
  }
  const std::filesystem::path& file() const;
  // The same data with another name; `info` must outlive the result.
  StoredTensor named(const TensorInfo& info) const {
    StoredTensor tensor = *this;
    tensor.info_ = &info;
    return tensor;
  }
  uint64_t stored_bytes() const; // info().bytes(), or fewer where factored

  // Reads out.size() bytes from `offset` of the tensor. Throws InputError for a
  // part outside the tensor, Error if the file was truncated since it was
  // opened. Parts of factored tensors begin and end at elements. Thread-safe.
  void read(std::span<std::byte> out, uint64_t offset = 0) const;

 private:
  const InputFile* file_ = nullptr; // or else:
  const FactoredTensor* factored_ = nullptr; // or else:
  std::span<const std::byte> data_;
  const std::filesystem::path* label_ = nullptr;
  const TensorInfo* info_;
  uint64_t begin_ = 0;
};

// One .safetensors file, read only. The constructor reads and checks the whole
// header (at most 100 MB, strict JSON, no duplicate names, sizes equal to shape
// x dtype, data without gaps, overlaps or trailing bytes) and throws InputError
// naming file and tensor. Data are read by pread, not mapped and not cached.
// Source: the format's description in the safetensors repository.
class MERGANSER_API SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const std::filesystem::path& path() const;
  const std::vector<TensorInfo>& tensors() const; // in the order of their data
  const Metadata& metadata() const;
  const TensorInfo* find(const std::string& name) const; // nullptr: absent
  StoredTensor at(const std::string& name) const; // throws InputError

  void read(
      const std::string& name,
      std::span<std::byte> out,
      uint64_t offset = 0) const {
    at(name).read(out, offset);
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The time at which a file gets its name: once it is complete (see AtomicFile),
// or at once, in a directory that itself appears once it is complete. In the
// second case existing data are kept, so that a killed run can resume.
enum class Appearance { kWhenWhole, kAtOnce };

// Writes one file. All tensors are declared first; their data may then arrive
// in any order, in parts and from several threads; finish() checks that every
// byte was written once, then makes the file appear under its name. The disk
// space is allocated at the start. Wider types are stored first, then in
// declaration order: so every tensor is aligned to its elements, as in files of
// the safetensors package. Throws InputError for a name that is duplicate, not
// UTF-8 or reserved; Error for data that were not declared, written twice or
// not at all.
class MERGANSER_API SafetensorsWriter {
 public:
  SafetensorsWriter(
      const std::filesystem::path& path,
      std::vector<TensorInfo> tensors,
      const Metadata& metadata = {},
      Appearance how = Appearance::kWhenWhole);
  ~SafetensorsWriter();

  void write(
      const std::string& name,
      std::span<const std::byte> data,
      uint64_t offset = 0);
  // Marks the tensor's data as already in the file.
  void skip(const std::string& name);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace merganser
