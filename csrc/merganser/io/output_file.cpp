#include "merganser/io/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "merganser/base/error.h"
#include "merganser/base/system_error.h"

namespace merganser {

OutputFile::OutputFile(
    const std::filesystem::path& path,
    Mode mode,
    std::filesystem::path shown_as)
    : shown_as_(shown_as.empty() ? path : std::move(shown_as)) {
  const int flags = mode == Mode::kNew ? O_EXCL : 0;
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | flags, 0666);
  if (fd_ < 0) {
    fail();
  }
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : shown_as_(std::move(other.shown_as_)),
      fd_(std::exchange(other.fd_, -1)) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void OutputFile::fail() const {
  throw Error(fmt::format(
      "{}: cannot be written: {}", shown_as_.string(), errno_text()));
}

void OutputFile::reserve(uint64_t size) {
  if (size == 0 ||
      ::fallocate(fd_, /*mode=*/0, /*offset=*/0, static_cast<off_t>(size)) ==
          0) {
    return;
  }
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    fail();
  }
}

void OutputFile::write_at(uint64_t offset, const void* data, size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count =
        ::pwrite(fd_, bytes, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail();
    }
    bytes += count;
    offset += static_cast<uint64_t>(count);
    size -= static_cast<size_t>(count);
  }
}

void OutputFile::start_storing() {
  // Optional: close() writes back the rest.
  ::sync_file_range(fd_, /*offset=*/0, /*nbytes=*/0, SYNC_FILE_RANGE_WRITE);
}

void OutputFile::close() {
  const bool synced = ::fsync(fd_) == 0;
  // A network file system may report a failed write here.
  if (!synced || ::close(std::exchange(fd_, -1)) != 0) {
    fail();
  }
}

} // namespace merganser
