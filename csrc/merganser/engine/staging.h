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

// Throws Error if the disk of `out` has less than `needed` bytes free.
void check_space(const std::filesystem::path& out, uint64_t needed);

// The directory in which a merge is written until it is complete:
//
//   OUT.merging/model    renamed to OUT at the end
//   OUT.merging/journal  a line per finished part
//   OUT.merging/lock     held by the process that writes
//
// A killed process leaves it behind, and a later one of the same identity can
// resume from it. Lines are written after the data they describe, into the same
// page cache, so that they hold after any kill; after a crash of the machine
// (another boot id) the journal is not trusted.
class MERGANSER_API Staging {
 public:
  // `identity`: equal if two runs would write the same bytes. Throws InputError
  // if `out` exists or, with `resume`, if the earlier run had another identity;
  // Error if another process is writing.
  Staging(
      const std::filesystem::path& out,
      const std::string& identity,
      bool resume);
  // True if an earlier run left something.
  static bool is_begun(const std::filesystem::path& out);
  static void remove_leftovers(const std::filesystem::path& out);

  // Removes the directory, and parents that were created for it and are empty,
  // unless keep() was called.
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // The final path.
  const std::filesystem::path& out() const {
    return out_;
  }
  const std::filesystem::path& folder() const {
    return model_;
  }
  // Lines of an earlier run.
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
