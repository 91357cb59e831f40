#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "merganser/experiment/content_hashes.h"
#include "merganser/experiment/events.h"
#include "merganser/io/file_lock.h"

namespace merganser {

using Json = nlohmann::ordered_json;

struct Stage {
  std::string name; // "train base"
  std::string unit; // of progress
  Json inputs; // settings and content hashes: all that the output depends on
  std::vector<std::filesystem::path> outputs; // files or model directories
  // Writes the outputs, each of which must be atomic.
  std::function<void(const ProgressCallback& progress)> work;
};

// Runs stages in a directory. A stage whose outputs were already produced from
// the same inputs does not run. One process at a time per directory.
class StageRunner {
 public:
  // Throws InputError for a directory with other contents.
  StageRunner(std::filesystem::path folder, const ExperimentEvents& events);

  void run(const Stage& stage);

  // See ContentHashes::of.
  std::string hash(const std::filesystem::path& path);

  const std::vector<StageRecord>& records() const {
    return records_;
  }

  // The record of the stage with this output, which has run.
  const StageRecord& record_of(const std::filesystem::path& output) const;

 private:
  // The content hash of all outputs.
  std::string hash_of(const std::vector<std::filesystem::path>& outputs);
  // True if the outputs exist with this content.
  bool holds(
      const std::vector<std::filesystem::path>& outputs,
      const std::string& hash);

  std::filesystem::path folder_;
  const ExperimentEvents& events_;
  FileLock lock_;
  ContentHashes hashes_;
  std::vector<StageRecord> records_;
  std::map<std::filesystem::path, size_t> record_of_; // by output, normalized
};

} // namespace merganser
