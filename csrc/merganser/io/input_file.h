#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "merganser/base/api.h"

namespace merganser {

// A regular file opened for reading at any offset. Throws InputError when it
// does not exist, cannot be opened or is no regular file.
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
  // The size when it was opened.
  uint64_t size() const {
    return size_;
  }

  // Fills `out`; throws Error when the file ends before or cannot be read. May
  // be called from several threads.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

} // namespace merganser
