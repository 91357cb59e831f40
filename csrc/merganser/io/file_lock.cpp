#include "merganser/io/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "merganser/base/error.h"

namespace merganser {

FileLock::FileLock(const std::filesystem::path& path)
    : fd_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (fd_ >= 0 && flock(fd_, LOCK_EX | LOCK_NB) == 0) {
    return;
  }
  const std::string reason = errno == EWOULDBLOCK
      ? "another run is using it"
      : std::generic_category().message(errno);
  if (fd_ >= 0) {
    close(fd_);
  }
  throw Error(fmt::format(
      "{} cannot be locked: {}", path.parent_path().string(), reason));
}

FileLock::~FileLock() {
  close(fd_);
}

} // namespace merganser
