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

  // Throw InputError for a negative dimension, a size beyond 64 bits, or (of
  // F4 and F6) one that is no whole number of bytes.
  int64_t numel() const;
  uint64_t bytes() const;
  std::string shape_text() const; // "[2, 3]"
  bool operator==(const TensorInfo&) const = default;
};

using Metadata = std::map<std::string, std::string>;

class InputFile;

// Where a tensor lies, in a file or in memory, for those who read it part by
// part. Valid as long as what it was made of.
class MERGANSER_API StoredTensor {
 public:
  StoredTensor(const InputFile& file, const TensorInfo& info, uint64_t begin)
      : file_(&file), info_(&info), begin_(begin) {}
  // `label` takes the place of the file.
  StoredTensor(
      std::span<const std::byte> data,
      const TensorInfo& info,
      const std::filesystem::path& label)
      : data_(data), label_(&label), info_(&info) {}

  const TensorInfo& info() const {
    return *info_;
  }
  const std::filesystem::path& file() const;

  // Reads out.size() bytes from `offset` of the tensor. Throws InputError for a
  // part outside the tensor, Error when the file was cut meanwhile. May be
  // called from several threads.
  void read(std::span<std::byte> out, uint64_t offset = 0) const;

 private:
  const InputFile* file_ = nullptr; // or else:
  std::span<const std::byte> data_;
  const std::filesystem::path* label_ = nullptr;
  const TensorInfo* info_;
  uint64_t begin_ = 0;
};

// One .safetensors file, read only. The constructor reads and checks the whole
// header (at most 100 MB, strict JSON, no duplicate names, sizes equal to shape
// x dtype, data without holes, overlaps or remainder) and throws InputError
// naming file and tensor. Data are read by pread: nothing is mapped, nothing is
// cached. Source: the format's description in the safetensors repository.
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

// When a file has its name: once it is whole (under another one before, see
// AtomicFile); or at once, in a folder that itself appears when it is whole.
// Then data of a file that is there are kept, so that a killed run can go on.
enum class Appearance { kWhenWhole, kAtOnce };

// Writes one file. All tensors are declared first; their data may then come in
// any order, in parts and from several threads; finish() checks that every byte
// came once, then makes the file appear under its name. The disk space is taken
// at the start. Wider types lie first, then declaration order: so every tensor
// is aligned to its elements, as in files of the safetensors package. Throws
// InputError for a name twice, not UTF-8 or reserved; Error for data that were
// not declared, came twice or not at all.
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
  // The tensor's data are in the file already.
  void skip(const std::string& name);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace merganser
