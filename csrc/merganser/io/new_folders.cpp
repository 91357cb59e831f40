#include "merganser/io/new_folders.h"

#include <algorithm>

namespace merganser {

namespace fs = std::filesystem;

NewFolders::NewFolders(const fs::path& folder) {
  std::vector<fs::path> missing;
  for (fs::path path = fs::absolute(folder); !fs::exists(path);
       path = path.parent_path()) {
    missing.push_back(path);
  }
  std::ranges::reverse(missing);
  try {
    for (const fs::path& path : missing) {
      if (fs::create_directory(path)) { // else somebody else has, meanwhile
        made_.push_back(path);
      }
    }
  } catch (...) {
    remove_empty();
    throw;
  }
}

NewFolders::~NewFolders() {
  remove_empty();
}

void NewFolders::remove_empty() {
  std::error_code not_empty;
  for (; !made_.empty(); made_.pop_back()) {
    fs::remove(made_.back(), not_empty);
  }
}

} // namespace merganser
