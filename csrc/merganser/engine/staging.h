#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/durable.h"
#include "merganser/io/file_lock.h"
#include "merganser/io/output_file.h"

namespace merganser {

// Where a merge is written until it is whole, and what is done of it:
//
//   OUT.merging/model    becomes OUT, in one step
//   OUT.merging/journal  a line per finished part
//   OUT.merging/lock     held while somebody is at work
//
// A killed process leaves it behind, and a later one of the same identity can
// go on from it. Lines are written after the data they speak of, into the same
// page cache, so that they hold after any kill; after a crash of the machine
// (another boot id) nothing is believed.
class MERGANSER_API Staging {
 public:
  // `identity`: equal where two runs would write the same bytes. Throws
  // InputError where `out` is there already, or, with `resume`, where what was
  // left is of another identity; Error where another process is at work.
  Staging(
      const std::filesystem::path& out,
      const std::string& identity,
      bool resume);
  // Whether an earlier run left something; removes it.
  static bool is_begun(const std::filesystem::path& out);
  static void remove_leftovers(const std::filesystem::path& out);

  // Removes the folder, and those around it that were made for it and are
  // empty, unless keep() was called.
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // What the folder will be called.
  const std::filesystem::path& out() const {
    return out_;
  }
  const std::filesystem::path& folder() const {
    return model_;
  }
  // What an earlier run finished.
  const std::vector<std::string>& finished() const {
    return finished_;
  }
  // May be called from several threads. A line without line breaks.
  void add(const std::string& line);

  void keep() {
    kept_ = true;
  }
  void commit();

 private:
  void read_journal(const std::string& head);

  std::filesystem::path out_;
  std::optional<NewFolders> parents_; // outlive what is in them
  std::filesystem::path root_;
  std::filesystem::path model_;
  std::unique_ptr<FileLock> lock_;
  std::vector<std::string> finished_;
  std::mutex mutex_;
  std::unique_ptr<OutputFile> journal_;
  uint64_t end_ = 0; // of the journal
  bool kept_ = false;
};

} // namespace merganser
