#include "merganser/plan/check_modules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/sentence_modules.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Modules = std::vector<SentenceModule>;

// Returns "Transformer, Pooling in 1_Pooling".
std::string describe(const Modules& modules) {
  std::vector<std::string> texts;
  for (const SentenceModule& module : modules) {
    texts.push_back(
        module.folder.empty()
            ? module.type
            : fmt::format("{} in {}", module.type, module.folder.string()));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

// Settings of a module. Older versions write a Pooling's modes one by one.
json read_settings(const fs::path& file) {
  constexpr std::pair<const char*, const char*> kModes[] = {
      {"pooling_mode_cls_token", "cls"},
      {"pooling_mode_max_tokens", "max"},
      {"pooling_mode_mean_tokens", "mean"},
      {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
      {"pooling_mode_weightedmean_tokens", "weightedmean"},
      {"pooling_mode_lasttoken", "lasttoken"}};
  json settings = parse_sorted_json_or_discard(read_file(file));
  if (!settings.is_object()) {
    throw InputError(fmt::format("{}: expected a JSON object", file.string()));
  }
  json modes = json::array();
  for (const auto& [key, mode] : kModes) {
    if (settings.contains(key)) {
      if (settings[key] == true) {
        modes.push_back(mode);
      }
      settings.erase(key);
    }
  }
  if (!modes.empty() && !settings.contains("pooling_mode")) {
    settings["pooling_mode"] = modes.size() == 1 ? modes[0] : modes;
  }
  if (settings.contains("word_embedding_dimension")) {
    settings["embedding_dimension"] = settings["word_embedding_dimension"];
  }
  return settings;
}

// A key that one of two files lacks has its default there: note_differences
// says that they differ.
void compare_settings(
    const fs::path& a,
    const fs::path& b,
    Problems& problems) {
  if (!fs::exists(a) || !fs::exists(b)) {
    return;
  }
  const json ours = read_settings(a);
  const json theirs = read_settings(b);
  for (const auto& [key, value] : ours.items()) {
    if (theirs.contains(key) && theirs[key] != value) {
      problems.add(fmt::format(
          "{} has {} {}, but {} has {}; models must have modules with the same "
          "settings",
          a.string(),
          key,
          json_text(value),
          b.string(),
          json_text(theirs[key])));
    }
  }
}

} // namespace

void check_modules(
    const ModelDir& model,
    const ModelDir& reference,
    Problems& problems) {
  const Modules ours = read_sentence_modules(model.path());
  const Modules theirs = read_sentence_modules(reference.path());
  if (ours.empty()) {
    return;
  }
  if (theirs.empty()) {
    problems.add(fmt::format(
        "{} is a model of sentence-transformers (modules.json: {}), but {}, "
        "whose files the output gets, has no modules.json; save that model "
        "with "
        "SentenceTransformer first",
        model.path().string(),
        describe(ours),
        reference.path().string()));
    return;
  }
  const auto same = [](const SentenceModule& a, const SentenceModule& b) {
    return a.type == b.type && a.folder == b.folder;
  };
  if (!std::ranges::equal(ours, theirs, same)) {
    problems.add(fmt::format(
        "{} has the modules {}, but {} has {}; models must have the same "
        "modules",
        (model.path() / "modules.json").string(),
        describe(ours),
        (reference.path() / "modules.json").string(),
        describe(theirs)));
    return;
  }
  for (const SentenceModule& module : ours) {
    if (!module.folder.empty()) {
      const fs::path file = module.folder / "config.json";
      problems.collect([&] {
        compare_settings(
            model.path() / file, reference.path() / file, problems);
      });
    }
  }
}

} // namespace merganser
