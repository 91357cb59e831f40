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

// A file that is written atomically: under a temporary name in the same
// directory, then fsync, rename, fsync of the directory. Destroyed without
// commit(), it removes the temporary file and keeps any existing file of the
// final name. Throws Error naming the final path (disk full, no permission),
// InputError if that is a directory or a device.
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

// Writes `content` atomically.
MERGANSER_API void write_file(
    const std::filesystem::path& path,
    std::string_view content);

// Reads a whole file or pipe; throws InputError if that fails.
MERGANSER_API std::string read_file(const std::filesystem::path& path);

// A directory that is written atomically: fill path(), then commit(). Creates
// missing parents. Replaces an existing directory of the final name in one step
// if `replace` is set or the directory is empty; otherwise the constructor
// throws InputError.
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
