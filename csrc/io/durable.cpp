#include "io/durable.h"

#include <fcntl.h>
#include <unistd.h>

#include <random>

#include <fmt/format.h>

#include "io/error.h"
#include "io/system_error.h"

namespace merganser {

std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  constexpr size_t kNameKept = 100; // a file name has at most 255 bytes
  std::random_device random;
  return path.parent_path() /
      fmt::format(
             ".{}.{:08x}.tmp",
             path.filename().string().substr(0, kNameKept),
             random());
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

} // namespace merganser
