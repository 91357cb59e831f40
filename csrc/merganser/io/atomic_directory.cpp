#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/system_error.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/durable.h"

namespace fs = std::filesystem;

namespace merganser {

namespace {

bool rename_with(const fs::path& from, const fs::path& to, unsigned flags) {
  return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0;
}

// Moves `fresh` to the path `old` and returns the new path of the old one.
fs::path replace(const fs::path& fresh, const fs::path& old) {
  if (rename_with(fresh, old, RENAME_EXCHANGE)) {
    return fresh;
  }
  // Some file systems (NFS) cannot exchange: rename twice, and undo the first
  // if the second fails.
  fs::path aside = temporary_beside(old);
  if (!rename_with(old, aside, 0)) {
    throw Error(
        fmt::format("{}: cannot be replaced: {}", old.string(), errno_text()));
  }
  if (!rename_with(fresh, old, 0)) {
    const std::string reason = errno_text();
    rename_with(aside, old, 0);
    throw Error(
        fmt::format("{}: cannot be replaced: {}", old.string(), reason));
  }
  return aside;
}

} // namespace

AtomicDirectory::AtomicDirectory(const fs::path& final_path, bool replace)
    : final_(with_name(final_path)), replace_(replace) {
  std::error_code error;
  if (fs::exists(final_, error)) {
    if (!fs::is_directory(final_, error)) {
      throw InputError(fmt::format(
          "{}: exists and is not a directory; choose another output path",
          final_path.string()));
    }
    if (!replace && !fs::is_empty(final_, error)) {
      throw InputError(fmt::format(
          "{}: exists already; remove it or choose another output path",
          final_path.string()));
    }
    final_ = fs::canonical(final_, error); // a link stays a link
  }
  if (!error) {
    fs::create_directories(final_.parent_path(), error);
  }
  do {
    temporary_ = temporary_beside(final_);
  } while (!error && !fs::create_directory(temporary_, error) && !error);
  if (error) {
    throw Error(fmt::format(
        "{}: cannot be written: {}", final_path.string(), error.message()));
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (!temporary_.empty()) {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  }
}

void AtomicDirectory::commit() {
  sync_all_to_disk(temporary_);
  // A plain rename replaces an empty directory.
  if (::rename(temporary_.c_str(), final_.c_str()) == 0) {
    temporary_.clear();
  } else if (replace_ && (errno == ENOTEMPTY || errno == EEXIST)) {
    temporary_ = merganser::replace(temporary_, final_);
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
    temporary_.clear();
  } else {
    throw Error(fmt::format(
        "{}: cannot be written: {}", final_.string(), errno_text()));
  }
  sync_to_disk(final_.parent_path());
}

} // namespace merganser
