#include "merganser/experiment/content_hashes.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/hash.h"
#include "merganser/io/model_dir.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Changes when the file does: a replaced file gets another inode.
std::string state_of(const fs::path& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    throw InputError(fmt::format("cannot read {}", path.string()));
  }
  return fmt::format(
      "{} {}.{:09} {}",
      status.st_size,
      status.st_mtim.tv_sec,
      status.st_mtim.tv_nsec,
      status.st_ino);
}

} // namespace

ContentHashes::ContentHashes(fs::path cache) : cache_(std::move(cache)) {
  if (!fs::exists(cache_)) {
    return;
  }
  try {
    const Json json = parse_json(read_file(cache_));
    for (const auto& [path, entry] : json.items()) {
      entries_[path] = {entry.at("state"), entry.at("hash")};
    }
  } catch (const Json::exception&) {
    entries_.clear(); // only a cache: missing entries are computed
  }
}

std::string ContentHashes::of(const fs::path& path) {
  if (!fs::is_directory(path)) {
    return of_file(path);
  }
  Hasher hasher;
  const auto add = [&](const fs::path& name, const fs::path& file) {
    hasher.update(name.string());
    hasher.update(of_file(file));
  };
  add("config.json", path / "config.json");
  for (const fs::path& name : ModelDir(path).companions()) {
    add(name, path / name);
  }
  for (const fs::path& file : Checkpoint(path).files()) {
    add(file.filename(), file);
  }
  return hasher.digest();
}

std::string ContentHashes::of_file(const fs::path& path) {
  const std::string state = state_of(path);
  Entry& entry = entries_[fs::absolute(path).lexically_normal().string()];
  if (entry.state != state) {
    entry = {state, hash_file(path)};
    changed_ = true;
  }
  return entry.hash;
}

void ContentHashes::save() {
  if (!changed_) {
    return;
  }
  Json json;
  for (const auto& [path, entry] : entries_) {
    json[path] = {{"state", entry.state}, {"hash", entry.hash}};
  }
  write_file(cache_, json_text(json, 1) + "\n");
  changed_ = false;
}

} // namespace merganser
