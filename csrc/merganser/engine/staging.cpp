#include "merganser/engine/staging.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "merganser/base/error.h"
#include "merganser/base/system_error.h"
#include "merganser/base/text_table.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/durable.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

std::string boot_id() {
  std::error_code error;
  const fs::path file = "/proc/sys/kernel/random/boot_id";
  return fs::exists(file, error) ? read_file(file) : "";
}

fs::path root_of(const fs::path& out) {
  fs::path root = with_name(out);
  root += ".merging";
  return root;
}

// Removes the temporary files of a killed process.
void remove_temporaries(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') && name.ends_with(".tmp")) {
      found.push_back(entry.path());
    }
  }
  for (const fs::path& file : found) {
    fs::remove(file);
  }
}

dev_t device_of(const fs::path& folder) {
  struct stat state {};
  ::stat(folder.c_str(), &state);
  return state.st_dev;
}

void check_free(const fs::path& out) {
  std::error_code ignored;
  if (!fs::exists(out, ignored)) {
    return;
  }
  if (!fs::is_directory(out, ignored)) {
    throw InputError(fmt::format(
        "{}: exists and is not a directory; choose another output path",
        out.string()));
  }
  if (!fs::is_empty(out, ignored)) {
    throw InputError(fmt::format(
        "{}: exists; remove it or choose another output path", out.string()));
  }
  if (device_of(out) != device_of(out.parent_path())) {
    throw InputError(fmt::format(
        "{}: is a mount point, which a finished directory cannot replace; "
        "choose a directory inside it",
        out.string()));
  }
}

// Refuses a directory of that name with other contents, which must not be
// removed.
void check_own(const fs::path& root) {
  std::error_code ignored;
  if (!fs::exists(root, ignored)) {
    return;
  }
  if (!fs::is_directory(root, ignored)) {
    throw InputError(fmt::format(
        "{}: exists and is not a directory, but the merge needs this path; "
        "rename it",
        root.string()));
  }
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (name != "lock" && name != "journal" && name != "model") {
      throw InputError(fmt::format(
          "{}: contains {}, which no merge has written, but the merge needs "
          "this path; rename the directory",
          root.string(),
          name));
    }
  }
}

} // namespace

void check_space(const fs::path& out, uint64_t needed) {
  fs::path folder = fs::absolute(out);
  while (!fs::exists(folder)) {
    folder = folder.parent_path();
  }
  const uint64_t free = fs::space(folder).available;
  if (free < needed) {
    throw Error(fmt::format(
        "{} needs {}, but its disk has only {} free",
        out.string(),
        format_bytes(needed),
        format_bytes(free)));
  }
}

Staging::Staging(const fs::path& out, const std::string& identity, bool resume)
    : out_(with_name(out)) {
  check_free(out_);
  root_ = root_of(out_);
  check_own(root_);
  model_ = root_ / "model";
  try {
    parents_.emplace(fs::absolute(root_).parent_path());
    fs::create_directory(root_);
  } catch (const fs::filesystem_error& error) {
    throw Error(fmt::format(
        "{}: cannot be written: {}", out.string(), error.code().message()));
  }
  lock_ = std::make_unique<FileLock>(root_ / "lock");
  const fs::path journal = root_ / "journal";
  const std::string head =
      fmt::format("merganser merge, {}, {}", identity, boot_id());
  const std::string line = head.substr(0, head.find('\n'));
  if (resume) {
    read_journal(line);
  }
  if (finished_.empty()) {
    fs::remove_all(model_);
    fs::remove(journal);
  }
  fs::create_directories(model_);
  remove_temporaries(model_);
  journal_ = std::make_unique<OutputFile>(journal, OutputFile::Mode::kKeep);
  if (end_ == 0) {
    add(line);
  }
}

// Keeps lines that end in a line break: the last one may be torn.
void Staging::read_journal(const std::string& head) {
  const fs::path journal = root_ / "journal";
  if (!fs::exists(journal)) {
    return;
  }
  const std::string text = read_file(journal);
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != std::string::npos;
       end = text.find('\n', begin)) {
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (end_ != 0) {
      finished_.push_back(std::move(line));
    } else if (line != head) {
      throw InputError(fmt::format(
          "{} belongs to another merge: the recipe, an input or an option has "
          "changed, or the machine was restarted; rerun without --resume to "
          "start again",
          root_.string()));
    }
    end_ = begin;
  }
  if (finished_.empty()) {
    end_ = 0;
  }
}

bool Staging::is_begun(const fs::path& out) {
  return fs::exists(root_of(out) / "journal");
}

void Staging::remove_leftovers(const fs::path& out) {
  fs::remove_all(root_of(out));
}

Staging::~Staging() {
  if (!kept_ && !root_.empty()) {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
}

void Staging::add(const std::string& line) {
  const std::string text = line + '\n';
  const std::lock_guard lock(mutex_);
  journal_->write_at(end_, text.data(), text.size());
  end_ += text.size();
}

void Staging::commit() {
  sync_all_to_disk(model_);
  // rename replaces an empty directory at the final path.
  if (::rename(model_.c_str(), out_.c_str()) != 0) {
    throw Error(
        fmt::format("{}: cannot be written: {}", out_.string(), errno_text()));
  }
  sync_to_disk(out_.parent_path());
}

} // namespace merganser
