#include "merganser/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/system_error.h"
#include "merganser/io/durable.h"

namespace merganser {

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  std::error_code ignored;
  if (std::filesystem::is_symlink(path, ignored)) {
    // Written to the link's target, as other programs do; a rename would
    // replace the link.
    path_ = std::filesystem::weakly_canonical(path, ignored);
  }
  const auto status = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(status) &&
      !std::filesystem::is_regular_file(status)) {
    throw InputError(fmt::format(
        "{}: exists and is not a regular file; choose another output path",
        path.string()));
  }
  std::error_code error;
  do {
    temporary_ = temporary_beside(path_);
  } while (std::filesystem::exists(temporary_, error));
  try {
    file_.emplace(temporary_, OutputFile::Mode::kNew, path_);
  } catch (const Error&) {
    temporary_.clear(); // created by another process
    throw;
  }
}

AtomicFile::~AtomicFile() {
  file_.reset();
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(const void* data, size_t size) {
  file_->write_at(end_, data, size);
  end_ += size;
}

void AtomicFile::commit() {
  file_->close();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw Error(
        fmt::format("{}: cannot be written: {}", path_.string(), errno_text()));
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
