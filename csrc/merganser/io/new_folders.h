#pragma once

#include <filesystem>
#include <vector>

namespace merganser {

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
