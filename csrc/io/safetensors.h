#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/api.h"
#include "io/atomic_file.h"
#include "io/dtype.h"

namespace merganser {

struct MERGANSER_API TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t numel() const;
  uint64_t bytes() const;
  bool operator==(const TensorInfo&) const = default;
};

using Metadata = std::map<std::string, std::string>;

// One .safetensors file, read only. The constructor reads and checks the whole
// header (size limit 100 MB, offsets in range, without holes or overlaps, sizes
// equal to shape x dtype, no duplicate names) and throws InputError naming file
// and tensor. Data are read by pread: nothing is mapped, nothing is cached.
// Source: the format's description in the safetensors repository.
class MERGANSER_API SafetensorsFile {
 public:
  explicit SafetensorsFile(std::filesystem::path path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const std::filesystem::path& path() const;
  const std::vector<TensorInfo>& tensors() const; // in file order
  const Metadata& metadata() const;
  const TensorInfo* find(const std::string& name) const; // nullptr: absent

  // Reads out.size() bytes of the tensor from `offset`. Throws InputError for
  // an unknown name, Error when the file ends early.
  void read(
      const std::string& name,
      std::span<std::byte> out,
      uint64_t offset = 0) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Writes one file. All tensors are declared first; their data may then come in
// any order and in parts; finish() checks that every byte came, then makes the
// file appear under its name. Tensors lie in declaration order, data start at a
// multiple of 8, as the safetensors package writes them.
class MERGANSER_API SafetensorsWriter {
 public:
  SafetensorsWriter(
      std::filesystem::path path,
      std::vector<TensorInfo> tensors,
      const Metadata& metadata = {});
  ~SafetensorsWriter();

  void write(
      const std::string& name,
      std::span<const std::byte> data,
      uint64_t offset = 0);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace merganser
