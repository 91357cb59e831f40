#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/io/output_file.h"

namespace merganser {

// A file that appears under its name only when it is whole: written under a
// temporary name in the same folder, then fsync, rename, fsync of the folder.
// Destroyed without commit(), it removes the temporary file and leaves whatever
// had the final name as it was. Throws Error naming the final path (disk full,
// no permission), InputError when that is a folder or a device.
class MERGANSER_API AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  OutputFile& file() {
    return *file_;
  }
  void write(const void* data, size_t size); // at the current end
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::optional<OutputFile> file_; // under the temporary name
  uint64_t end_ = 0;
};

// Writes `content` in one go.
MERGANSER_API void write_file(
    const std::filesystem::path& path,
    std::string_view content);

// Reads a whole file or pipe; throws InputError when it cannot be read.
MERGANSER_API std::string read_file(const std::filesystem::path& path);

// A directory that appears under its final name only when it is whole: fill
// path(), then commit(). Missing parent folders are made. An existing folder of
// that name is replaced in one step if `replace` or if it is empty; otherwise
// it is an InputError at construction.
class MERGANSER_API AtomicDirectory {
 public:
  AtomicDirectory(const std::filesystem::path& final_path, bool replace);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const {
    return temporary_;
  }
  void commit();

 private:
  std::filesystem::path final_;
  std::filesystem::path temporary_;
  bool replace_;
};

} // namespace merganser
