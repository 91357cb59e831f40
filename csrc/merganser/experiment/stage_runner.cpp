#include "merganser/experiment/stage_runner.h"

#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/version.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/durable.h"
#include "merganser/io/hash.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
constexpr const char* kState = ".stages";

// Creates the directory of the runner's own state. Stages remove stale outputs,
// so a directory with other contents is rejected.
fs::path prepare(const fs::path& folder) {
  fs::path state = folder / kState;
  if (fs::exists(folder) && !fs::exists(state) &&
      !(fs::is_directory(folder) && fs::is_empty(folder))) {
    throw InputError(fmt::format(
        "{}: not empty and not an experiment's directory; choose another "
        "output "
        "path",
        folder.string()));
  }
  std::error_code error;
  fs::create_directories(state, error);
  if (error) {
    throw Error(fmt::format(
        "cannot create directory {}: {}", state.string(), error.message()));
  }
  return state;
}

// Inputs of a stage's last start, and its outcome.
struct Stamp {
  Json inputs;
  std::string output; // content hash; empty: not completed
  double seconds = 0;

  static Stamp load(const fs::path& path) {
    if (!fs::exists(path)) {
      return {};
    }
    try {
      const Json json = parse_json(read_file(path));
      return {json.at("inputs"), json.at("output"), json.at("seconds")};
    } catch (const Json::exception&) {
      return {}; // a damaged stamp counts as none
    }
  }

  void save(const fs::path& path) const {
    const Json json = {
        {"inputs", inputs}, {"output", output}, {"seconds", seconds}};
    write_file(path, json_text(json, 1) + "\n");
  }
};

fs::path partial(const fs::path& output) {
  return output.string() + ".partial";
}

} // namespace

StageRunner::StageRunner(fs::path folder, const ExperimentEvents& events)
    : folder_(std::move(folder)),
      events_(events),
      lock_(prepare(folder_) / "lock"),
      hashes_(folder_ / kState / "hashes.json") {}

std::string StageRunner::hash(const fs::path& path) {
  return hashes_.of(path);
}

const StageRecord& StageRunner::record_of(const fs::path& output) const {
  return records_[record_of_.at(output.lexically_normal())];
}

std::string StageRunner::hash_of(const std::vector<fs::path>& outputs) {
  if (outputs.size() == 1) {
    return hashes_.of(outputs[0]);
  }
  Hasher hasher;
  for (const fs::path& output : outputs) {
    hasher.update(hashes_.of(output));
  }
  return hasher.digest();
}

bool StageRunner::holds(
    const std::vector<fs::path>& outputs,
    const std::string& hash) {
  const auto exists = [](const fs::path& path) { return fs::exists(path); };
  try {
    return !hash.empty() && std::ranges::all_of(outputs, exists) &&
        hash_of(outputs) == hash;
  } catch (const InputError&) {
    return false; // a damaged model directory
  }
}

void StageRunner::run(const Stage& stage) {
  std::string file_name = stage.name + ".json";
  std::ranges::replace(file_name, ' ', '-');
  const fs::path stamp_path = folder_ / kState / file_name;

  Json inputs = {
      {"program", fmt::format("{}, torch {}", version(), TORCH_VERSION)}};
  inputs.update(stage.inputs);
  Stamp stamp = Stamp::load(stamp_path);
  const bool same = stamp.inputs == inputs;
  const bool cached = same && holds(stage.outputs, stamp.output);
  if (!cached) {
    // Deletes before it saves the stamp: a partial output found later belongs
    // to the inputs in the stamp, and can be resumed if they are unchanged.
    for (const fs::path& output : stage.outputs) {
      fs::remove_all(output);
      remove_temporaries_beside(output);
      if (!same) {
        fs::remove_all(partial(output));
      }
    }
    stamp = {.inputs = inputs, .output = "", .seconds = 0};
    stamp.save(stamp_path);
    const auto start = std::chrono::steady_clock::now();
    stage.work(events_.begin(stage.name, stage.unit));
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    stamp.output = hash_of(stage.outputs);
    stamp.seconds = seconds.count();
    stamp.save(stamp_path);
  }
  hashes_.save();
  for (const fs::path& output : stage.outputs) {
    record_of_[output.lexically_normal()] = records_.size();
  }
  records_.push_back(
      {stage.name, json_text(inputs), stamp.output, stamp.seconds, cached});
  events_.end(records_.back());
}

} // namespace merganser
