#include "merganser/experiment/stage_runner.h"

#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>

#include "merganser/base/error.h"
#include "merganser/base/version.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/durable.h"
#include "merganser/io/hash.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
constexpr const char* kState = ".stages";

// The folder for what the runner itself remembers, made if it can be. Stages
// remove what has become stale, so they must not be let loose on a folder with
// somebody's models in it.
fs::path prepare(const fs::path& folder) {
  const fs::path state = folder / kState;
  if (fs::exists(folder) && !fs::exists(state) &&
      !(fs::is_directory(folder) && fs::is_empty(folder))) {
    throw InputError(fmt::format(
        "{} is not empty and holds no experiment; name a new folder",
        folder.string()));
  }
  std::error_code error;
  fs::create_directories(state, error);
  if (error) {
    throw Error(fmt::format(
        "cannot make the folder {}: {}", state.string(), error.message()));
  }
  return state;
}

// What the stage was last started from, and how it ended.
struct Stamp {
  Json inputs;
  std::string output; // content hash; empty: it did not end
  double seconds = 0;

  static Stamp load(const fs::path& path) {
    Stamp stamp;
    if (fs::exists(path)) {
      try {
        const Json json = Json::parse(read_file(path));
        stamp = {json.at("inputs"), json.at("output"), json.at("seconds")};
      } catch (const Json::exception&) {
        // Damaged: as if the stage had never run.
      }
    }
    return stamp;
  }

  void save(const fs::path& path) const {
    const Json json = {
        {"inputs", inputs}, {"output", output}, {"seconds", seconds}};
    write_file(path, json.dump(1) + "\n");
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

bool StageRunner::holds(const fs::path& output, const std::string& hash) {
  try {
    return !hash.empty() && fs::exists(output) && hashes_.of(output) == hash;
  } catch (const InputError&) {
    return false; // a model directory that somebody has damaged
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
  const bool cached = same && holds(stage.output, stamp.output);
  if (!cached) {
    // In this order: a partial output that is found later belongs to the inputs
    // in the stamp, and can be gone on with if they are still the same.
    fs::remove_all(stage.output);
    remove_temporaries_beside(stage.output);
    if (!same) {
      fs::remove_all(partial(stage.output));
    }
    stamp = {.inputs = inputs, .output = "", .seconds = 0};
    stamp.save(stamp_path);
    const auto start = std::chrono::steady_clock::now();
    stage.work(events_.begin(stage.name, stage.unit));
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    stamp.output = hashes_.of(stage.output);
    stamp.seconds = seconds.count();
    stamp.save(stamp_path);
  }
  hashes_.save();
  records_.push_back(
      {stage.name, inputs.dump(), stamp.output, stamp.seconds, cached});
  events_.end(records_.back());
}

} // namespace merganser
