#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "io/durable.h"
#include "io/error.h"
#include "io/system_error.h"

namespace merganser {

namespace {

[[noreturn]] void fail(const std::filesystem::path& path) {
  throw Error(
      fmt::format("{}: cannot be written: {}", path.string(), errno_text()));
}

} // namespace

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  std::error_code ignored;
  if (std::filesystem::is_symlink(path, ignored)) {
    // Written through, as every other program does; the rename would put a
    // file in the link's place.
    path_ = std::filesystem::weakly_canonical(path, ignored);
  }
  const auto status = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(status) &&
      !std::filesystem::is_regular_file(status)) {
    throw InputError(fmt::format(
        "{}: is there and is no regular file; give another name",
        path.string()));
  }
  do {
    temporary_ = temporary_beside(path_);
    fd_ =
        ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) {
    fail(path_);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::reserve(uint64_t size) {
  if (size == 0 ||
      ::fallocate(fd_, /*mode=*/0, /*offset=*/0, static_cast<off_t>(size)) ==
          0) {
    return;
  }
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    fail(path_);
  }
}

void AtomicFile::write(const void* data, size_t size) {
  write_at(end_, data, size);
  end_ += size;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count =
        ::pwrite(fd_, bytes, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail(path_);
    }
    bytes += count;
    offset += static_cast<uint64_t>(count);
    size -= static_cast<size_t>(count);
  }
}

void AtomicFile::commit() {
  const bool synced = ::fsync(fd_) == 0;
  // close may report what a network file system could not store.
  const bool closed = synced && ::close(std::exchange(fd_, -1)) == 0;
  if (!closed || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail(path_);
  }
  temporary_.clear();
  const auto folder = path_.parent_path();
  sync_to_disk(folder.empty() ? "." : folder);
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

std::string read_file(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string content;
  ssize_t count = fd < 0 ? -1 : 1;
  while (count > 0) {
    const size_t size = content.size();
    constexpr size_t kChunk = size_t{1} << 16;
    content.resize(size + kChunk);
    do {
      count = ::read(fd, content.data() + size, kChunk);
    } while (count < 0 && errno == EINTR);
    content.resize(size + (count > 0 ? static_cast<size_t>(count) : 0));
  }
  const std::string reason = count < 0 ? errno_text() : "";
  if (fd >= 0) {
    ::close(fd);
  }
  if (count < 0) {
    throw InputError(
        fmt::format("{}: cannot be read: {}", path.string(), reason));
  }
  return content;
}

} // namespace merganser
