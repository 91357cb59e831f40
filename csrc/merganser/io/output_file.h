#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "merganser/base/api.h"

namespace merganser {

// A file that is written where it is. Throws Error naming the file (disk full,
// no permission).
class MERGANSER_API OutputFile {
 public:
  enum class Mode {
    kNew, // there must be none of that name
    kKeep, // what is there stays, but for what is written
  };
  // `shown_as`: the name in messages, by default the path.
  OutputFile(
      const std::filesystem::path& path,
      Mode mode,
      std::filesystem::path shown_as = {});
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Takes `size` bytes of the disk now, where the file system can, so that a
  // full disk is reported before the work and not after it.
  void reserve(uint64_t size);
  // May be called from several threads.
  void write_at(uint64_t offset, const void* data, size_t size);
  // Lets the kernel begin to store what has been written, so that close() has
  // less to wait for.
  void start_storing();
  void close(); // with fsync

 private:
  [[noreturn]] void fail() const;

  std::filesystem::path shown_as_;
  int fd_ = -1;
};

} // namespace merganser
