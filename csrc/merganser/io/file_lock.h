#pragma once

#include <filesystem>

#include "merganser/base/api.h"

namespace merganser {

// While it lives, no other process (or object) holds the lock of this file,
// which is made where it is not there. A process that dies lets go of it.
class MERGANSER_API FileLock {
 public:
  // Throws Error, naming the file's folder, when somebody else has it.
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_;
};

} // namespace merganser
