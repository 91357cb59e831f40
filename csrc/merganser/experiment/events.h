#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "merganser/base/progress.h"

namespace merganser {

// Outcome of a stage.
struct StageRecord {
  std::string name; // "train base"
  std::string inputs; // JSON: settings and content hashes
  std::string output; // content hash
  double seconds = 0; // duration of the run that produced it
  bool cached = false; // produced by an earlier run
};

nlohmann::ordered_json to_json(const StageRecord& record);

// Callbacks of a running experiment, called from one thread.
struct ExperimentEvents {
  // Called when a stage starts work (never for a cached one), with its name and
  // the unit of its progress.
  std::function<
      ProgressCallback(const std::string& stage, const std::string& unit)>
      begin;
  // Called after every stage.
  std::function<void(const StageRecord& record)> end;
};

} // namespace merganser
