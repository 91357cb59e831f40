#pragma once

#include <filesystem>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// "a/b/", "." and "a/../b" as an absolute path with a parent and a name.
MERGANSER_API std::filesystem::path with_name(
    const std::filesystem::path& path);

// An unused name in the directory of `path`: hidden, ending in .tmp.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

// Removes what killed processes left under such names. Only for paths that no
// other process is writing.
MERGANSER_API void remove_temporaries_beside(const std::filesystem::path& path);

// fsync of a file or directory; throws Error.
MERGANSER_API void sync_to_disk(const std::filesystem::path& path);

// fsync of a directory and everything below it.
MERGANSER_API void sync_all_to_disk(const std::filesystem::path& folder);

// Creates a directory and its missing parents. Removes those that are empty
// when it is destroyed.
class NewFolders {
 public:
  // Throws std::filesystem::filesystem_error.
  explicit NewFolders(const std::filesystem::path& folder);
  ~NewFolders();
  NewFolders(const NewFolders&) = delete;
  NewFolders& operator=(const NewFolders&) = delete;

 private:
  void remove_empty();

  std::vector<std::filesystem::path> created_; // parents first
};

} // namespace merganser
