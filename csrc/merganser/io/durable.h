#pragma once

#include <filesystem>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// "a/b/", "." and "a/../b" as an absolute path with a parent and a name.
MERGANSER_API std::filesystem::path with_name(
    const std::filesystem::path& path);

// A name in the folder of `path` that nothing has: hidden, ending in .tmp.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

// Removes what processes that were killed left under such names. Only for paths
// that no other process is writing.
MERGANSER_API void remove_temporaries_beside(const std::filesystem::path& path);

// fsync of a file or folder; throws Error.
MERGANSER_API void sync_to_disk(const std::filesystem::path& path);

// Of a folder and everything below it.
MERGANSER_API void sync_all_to_disk(const std::filesystem::path& folder);

// A folder and its parents, made where they were missing. Those that are empty
// in the end are removed again.
class NewFolders {
 public:
  // Throws std::filesystem::filesystem_error.
  explicit NewFolders(const std::filesystem::path& folder);
  ~NewFolders();
  NewFolders(const NewFolders&) = delete;
  NewFolders& operator=(const NewFolders&) = delete;

 private:
  void remove_empty();

  std::vector<std::filesystem::path> made_; // parents first
};

} // namespace merganser
