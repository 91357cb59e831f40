#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "merganser/io/file_lock.h"
#include "merganser/search/search_result.h"

namespace merganser {

// The trials of a search, in OUT/trials.jsonl: a line that describes the search
// and a line per trial. Lines hold no times, so that a search that was killed
// and continued writes the same file as another.
class TrialJournal {
 public:
  // Creates the directory `out`, or reads the trials of an earlier run; what
  // that left of an unfinished line is removed. Throws InputError if `out`
  // contains anything else, or a search of which `description` differs.
  TrialJournal(
      const std::filesystem::path& out,
      const nlohmann::ordered_json& description);

  const std::vector<Trial>& earlier() const {
    return earlier_;
  }
  void add(const nlohmann::ordered_json& line);

 private:
  std::filesystem::path file_;
  FileLock lock_;
  std::vector<Trial> earlier_;
  std::ofstream stream_;
};

} // namespace merganser
