#include "merganser/io/durable.h"

#include <fcntl.h>
#include <unistd.h>

#include <random>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/system_error.h"

namespace merganser {

namespace {

constexpr std::string_view kSuffix = ".tmp";

std::string prefix(const std::filesystem::path& path) {
  constexpr size_t kNameKept = 100; // a file name has at most 255 bytes
  return fmt::format(".{}.", path.filename().string().substr(0, kNameKept));
}

} // namespace

std::filesystem::path with_name(const std::filesystem::path& path) {
  std::filesystem::path full =
      std::filesystem::absolute(path).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  std::random_device random;
  return path.parent_path() /
      fmt::format("{}{:08x}{}", prefix(path), random(), kSuffix);
}

void remove_temporaries_beside(const std::filesystem::path& path) {
  std::error_code ignored; // a folder that is not there holds none
  for (const auto& entry :
       std::filesystem::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix(path)) && name.ends_with(kSuffix)) {
      std::filesystem::remove_all(entry.path(), ignored);
    }
  }
}

void sync_to_disk(const std::filesystem::path& path) {
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

void sync_all_to_disk(const std::filesystem::path& folder) {
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() || entry.is_directory()) {
      sync_to_disk(entry.path());
    }
  }
  sync_to_disk(folder);
}

} // namespace merganser
