#pragma once

#include <functional>
#include <string>

#include "merganser/base/progress.h"

namespace merganser {

// How a stage ended.
struct StageRecord {
  std::string name; // "train base"
  std::string inputs; // JSON: settings and content hashes
  std::string output; // content hash
  double seconds = 0; // of the run that made it
  bool cached = false; // made by an earlier run
};

// What is said while an experiment runs. Called from one thread.
struct ExperimentEvents {
  // A stage begins to work (one that is cached never does): its name and the
  // unit of its progress.
  std::function<
      ProgressCallback(const std::string& stage, const std::string& unit)>
      begin;
  std::function<void(const StageRecord& record)> end;
};

} // namespace merganser
