#include "merganser/io/durable.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/system_error.h"

namespace merganser {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kSuffix = ".tmp";

std::string prefix(const fs::path& path) {
  constexpr size_t kNameKept = 100; // a file name has at most 255 bytes
  return fmt::format(".{}.", path.filename().string().substr(0, kNameKept));
}

} // namespace

fs::path with_name(const fs::path& path) {
  fs::path full = fs::absolute(path).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

fs::path temporary_beside(const fs::path& path) {
  std::random_device random;
  return path.parent_path() /
      fmt::format("{}{:08x}{}", prefix(path), random(), kSuffix);
}

void remove_temporaries_beside(const fs::path& path) {
  std::error_code ignored; // a missing directory has none
  for (const auto& entry :
       fs::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix(path)) && name.ends_with(kSuffix)) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

void sync_to_disk(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ::fsync(fd) != 0) {
    const std::string reason = errno_text();
    if (fd >= 0) {
      ::close(fd);
    }
    throw Error(fmt::format(
        "{}: cannot be flushed to disk: {}", path.string(), reason));
  }
  ::close(fd);
}

void sync_all_to_disk(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() || entry.is_directory()) {
      sync_to_disk(entry.path());
    }
  }
  sync_to_disk(folder);
}

NewFolders::NewFolders(const fs::path& folder) {
  std::vector<fs::path> missing;
  for (fs::path path = fs::absolute(folder); !fs::exists(path);
       path = path.parent_path()) {
    missing.push_back(path);
  }
  std::ranges::reverse(missing);
  try {
    for (const fs::path& path : missing) {
      if (fs::create_directory(path)) { // else another process did
        created_.push_back(path);
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
  for (; !created_.empty(); created_.pop_back()) {
    fs::remove(created_.back(), not_empty);
  }
}

} // namespace merganser
