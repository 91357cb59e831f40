#pragma once

#include <filesystem>

#include "merganser/base/api.h"

namespace merganser {

// Holds the exclusive lock of a file, which it creates if missing. The lock
// ends with the object, or with the process.
class MERGANSER_API FileLock {
 public:
  // Throws Error, naming the file's directory, if another run holds the lock.
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_;
};

} // namespace merganser
