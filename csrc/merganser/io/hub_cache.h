#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "merganser/base/api.h"

// Models of the Hugging Face Hub in the local cache that huggingface_hub keeps:
// models--OWNER--NAME/ with refs/BRANCH, a file with a commit, and
// snapshots/COMMIT/, a model directory of links.
namespace merganser {

// True for an owner or a name on the Hub, by its rules.
MERGANSER_API bool is_hub_word(std::string_view word);

struct HubModel {
  std::string name; // "owner/name"
  std::string revision = "main"; // a branch, a tag or a commit
};

// Reads "owner/name" or "owner/name@revision"; nothing for any other text, nor
// for the path of a .safetensors file.
MERGANSER_API std::optional<HubModel> parse_hub_model(std::string_view text);

// HF_HUB_CACHE, hub/ in HF_HOME, huggingface/hub/ in XDG_CACHE_HOME, or
// ~/.cache/huggingface/hub; absolute.
MERGANSER_API std::filesystem::path hub_cache();

// The model's snapshot in a cache, whose download may be unfinished; nothing if
// the cache lacks the model or the revision.
MERGANSER_API std::optional<std::filesystem::path> find_in_hub_cache(
    const HubModel& model,
    const std::filesystem::path& cache);

// The directory of a model that a user names by a path, or by owner/name or
// owner/name@revision on the Hub: `path` if it exists, otherwise the snapshot
// in hub_cache(). Texts that are no such name give `path`, whose reader says
// what is missing. Throws InputError if the model is in neither place, or its
// download is unfinished.
MERGANSER_API std::filesystem::path find_model(
    const std::string& text,
    const std::filesystem::path& path);
MERGANSER_API std::filesystem::path find_model(const std::string& path);

// Sets what find_model calls where a snapshot is missing or unfinished. The
// function brings it into `cache`, or throws; by default, find_model's error
// names the command for that.
using HubDownload =
    void (*)(const HubModel& model, const std::filesystem::path& cache);
MERGANSER_API void set_hub_download(HubDownload download);

// Returns the directory of a model, which the user named `text`, or throws.
using HubFinder = std::function<
    std::filesystem::path(const std::string& text, const HubModel& model)>;

// While it lives, find_model in this thread asks `finder`, in place of a
// download, where a snapshot is missing or unfinished.
class MERGANSER_API HubFinderScope {
 public:
  explicit HubFinderScope(const HubFinder& finder);
  ~HubFinderScope();
  HubFinderScope(const HubFinderScope&) = delete;
  HubFinderScope& operator=(const HubFinderScope&) = delete;

 private:
  const HubFinder* previous_;
};

// "owner/name" of a snapshot; nothing for other paths.
MERGANSER_API std::optional<std::string> hub_name_of(
    const std::filesystem::path& snapshot);

// Name of a model's directory for people: hub_name_of, or its last component.
MERGANSER_API std::string model_name(const std::filesystem::path& model);

} // namespace merganser
