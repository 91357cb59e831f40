#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "merganser/base/api.h"

namespace merganser {

// A regular file opened for reading at any offset. Throws InputError if it does
// not exist, cannot be opened or is not a regular file.
class MERGANSER_API InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const {
    return path_;
  }
  // Size when the file was opened.
  uint64_t size() const {
    return size_;
  }

  // Fills `out`; throws Error if the file ends before that or cannot be read.
  // Thread-safe.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

} // namespace merganser
