#include "merganser/io/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint_index.h"
#include "merganser/io/lora.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRepositoryPrefix = "models--";
constexpr std::string_view kSeparator = "--"; // of owner and name
constexpr const char* kSnapshots = "snapshots";

std::atomic<HubDownload> hub_download = nullptr;
thread_local const HubFinder* hub_finder = nullptr;

// A path in the environment; ~ is the user's home, as for huggingface_hub.
std::optional<fs::path> variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') {
    return std::nullopt;
  }
  const std::string_view text = value;
  const char* home = std::getenv("HOME");
  return text.starts_with("~/") && home != nullptr ? home / fs::path(value + 2)
                                                   : fs::path(value);
}

// A revision may have slashes (refs/pr/1), but names no file outside of refs/.
bool is_revision(std::string_view revision) {
  const auto is_blank = [](unsigned char c) { return c <= ' ' || c == 0x7f; };
  return !revision.empty() && !revision.starts_with('/') &&
      revision.find("..") == revision.npos &&
      std::ranges::none_of(revision, is_blank);
}

bool path_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored); // false for a link to nothing
}

// The commit that a branch or tag names. Commits have no file in refs/.
std::string commit_of(const fs::path& repository, const std::string& revision) {
  const fs::path ref = repository / "refs" / revision;
  std::error_code ignored;
  if (!fs::is_regular_file(ref, ignored)) {
    return revision;
  }
  std::string commit = read_file(ref);
  commit.erase(commit.find_last_not_of(" \n\r") + 1);
  return commit;
}

// Names the first file that an unfinished download lacks; nothing for a
// snapshot that has all weights, which come last.
std::optional<std::string> missing_part(const fs::path& snapshot) {
  if (!path_exists(snapshot / "config.json") &&
      !path_exists(snapshot / kAdapterConfig)) {
    return "config.json";
  }
  fs::path weights;
  try {
    weights = find_weights(snapshot);
  } catch (const InputError&) {
    return "weights in .safetensors files";
  }
  if (!path_exists(weights)) {
    return weights.filename().string();
  }
  if (is_checkpoint_index(weights)) {
    for (const std::string& shard : read_checkpoint_index(weights).shards) {
      if (!path_exists(snapshot / shard)) {
        return shard;
      }
    }
  }
  return std::nullopt;
}

} // namespace

bool is_hub_word(std::string_view word) {
  constexpr size_t kMaxLength = 96;
  const auto is_edge = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
        (c >= 'A' && c <= 'Z') || c == '_';
  };
  return !word.empty() && word.size() <= kMaxLength && is_edge(word.front()) &&
      is_edge(word.back()) &&
      std::ranges::all_of(
          word, [&](char c) { return is_edge(c) || c == '-' || c == '.'; }) &&
      word.find(kSeparator) == word.npos && word.find("..") == word.npos &&
      !word.ends_with(".git");
}

std::optional<HubModel> parse_hub_model(std::string_view text) {
  HubModel model;
  if (const size_t at = text.find('@'); at != text.npos) {
    model.revision = text.substr(at + 1);
    text = text.substr(0, at);
  }
  const size_t slash = text.find('/');
  if (text.find(".safetensors") != text.npos || slash == text.npos ||
      !is_hub_word(text.substr(0, slash)) ||
      !is_hub_word(text.substr(slash + 1)) || !is_revision(model.revision)) {
    return std::nullopt;
  }
  model.name = text;
  return model;
}

fs::path hub_cache() {
  if (const auto cache = variable("HF_HUB_CACHE")) {
    return fs::absolute(*cache);
  }
  if (const auto home = variable("HF_HOME")) {
    return fs::absolute(*home / "hub");
  }
  const fs::path cache =
      variable("XDG_CACHE_HOME")
          .value_or(variable("HOME").value_or("/") / ".cache");
  return fs::absolute(cache / "huggingface" / "hub");
}

std::optional<fs::path> find_in_hub_cache(
    const HubModel& model,
    const fs::path& cache) {
  const size_t slash = model.name.find('/');
  const fs::path repository = cache /
      fmt::format("{}{}{}{}",
                  kRepositoryPrefix,
                  model.name.substr(0, slash),
                  kSeparator,
                  model.name.substr(slash + 1));
  const fs::path snapshot =
      repository / kSnapshots / commit_of(repository, model.revision);
  std::error_code ignored;
  return fs::is_directory(snapshot, ignored) ? std::optional(snapshot)
                                             : std::nullopt;
}

fs::path find_model(const std::string& text, const fs::path& path) {
  const auto model = parse_hub_model(text);
  if (!model || path_exists(path)) {
    return path;
  }
  const fs::path cache = hub_cache();
  auto snapshot = find_in_hub_cache(*model, cache);
  if (!snapshot || missing_part(*snapshot)) {
    if (hub_finder != nullptr) {
      return (*hub_finder)(text, *model);
    }
    if (const HubDownload download = hub_download) {
      download(*model, cache);
      snapshot = find_in_hub_cache(*model, cache);
    }
  }
  if (!snapshot) {
    throw InputError(fmt::format(
        "{} is neither a directory nor a model in the Hub's cache {}; download "
        "it with: merganser download {}",
        quote(text),
        cache.string(),
        text));
  }
  if (const auto missing = missing_part(*snapshot)) {
    throw InputError(fmt::format(
        "{} is not a directory, and the Hub's cache has only a part of the "
        "model: "
        "{} lacks {}; complete it with: merganser download {}",
        quote(text),
        snapshot->string(),
        *missing,
        text));
  }
  return *snapshot;
}

fs::path find_model(const std::string& path) {
  return find_model(path, path);
}

void set_hub_download(HubDownload download) {
  hub_download = download;
}

HubFinderScope::HubFinderScope(const HubFinder& finder)
    : previous_(std::exchange(hub_finder, &finder)) {}

HubFinderScope::~HubFinderScope() {
  hub_finder = previous_;
}

std::optional<std::string> hub_name_of(const fs::path& snapshot) {
  const fs::path snapshots = snapshot.parent_path();
  const std::string repository = snapshots.parent_path().filename().string();
  const size_t separator =
      repository.find(kSeparator, kRepositoryPrefix.size());
  if (snapshots.filename() != kSnapshots ||
      !repository.starts_with(kRepositoryPrefix) ||
      separator == repository.npos) {
    return std::nullopt;
  }
  return repository.substr(
             kRepositoryPrefix.size(), separator - kRepositoryPrefix.size()) +
      "/" + repository.substr(separator + kSeparator.size());
}

std::string model_name(const fs::path& model) {
  return hub_name_of(model).value_or(model.filename().string());
}

} // namespace merganser
