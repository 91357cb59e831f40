#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "merganser/base/api.h"

namespace merganser {

// A file that is written in place. Throws Error naming the file (disk full, no
// permission).
class MERGANSER_API OutputFile {
 public:
  enum class Mode {
    kNew, // must not exist yet
    kKeep, // keeps the existing content
  };
  // `shown_as`: the name in messages; default: the path.
  OutputFile(
      const std::filesystem::path& path,
      Mode mode,
      std::filesystem::path shown_as = {});
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Allocates `size` bytes on the disk, if the file system supports that, so
  // that a full disk is reported before the work.
  void reserve(uint64_t size);
  // Thread-safe.
  void write_at(uint64_t offset, const void* data, size_t size);
  // Makes the kernel start to write back the data, so that close() waits less.
  void start_storing();
  void close(); // with fsync

 private:
  [[noreturn]] void fail() const;

  std::filesystem::path shown_as_;
  int fd_ = -1;
};

} // namespace merganser
