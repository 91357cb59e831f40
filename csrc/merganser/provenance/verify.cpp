#include "merganser/provenance/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/hash.h"

namespace merganser {
namespace {

using State = Verification::State;

const char* state_name(State state) {
  switch (state) {
    case State::kSame:
      return "same";
    case State::kChanged:
      return "changed";
    case State::kMissing:
      return "missing";
  }
  return "";
}

// Compares the hashes of the checkpoint at `path` with the expected ones.
Verification::Row check(
    const std::filesystem::path& path,
    const std::string& content_hash,
    const std::string& settings) {
  Verification::Row row;
  row.path = path;
  try {
    const Checkpoint checkpoint(path);
    row.storage = storage_of(checkpoint.metadata());
    row.state = checkpoint.content_hash() == content_hash &&
            settings_hash(checkpoint) == settings
        ? State::kSame
        : State::kChanged;
  } catch (const InputError& error) {
    // A path that exists but is no longer a checkpoint has changed.
    std::error_code ignored;
    row.state = std::filesystem::exists(path, ignored) ? State::kChanged
                                                       : State::kMissing;
    row.problem = error.what();
  }
  return row;
}

} // namespace

bool Verification::good() const {
  return output.state == State::kSame &&
      std::ranges::none_of(inputs, [](const Row& row) {
           return row.state == State::kChanged;
         });
}

std::string Verification::to_text() const {
  std::vector<std::vector<std::string>> rows = {{"", "state", "path"}};
  const auto add = [&](const char* role, const Row& row) {
    rows.push_back(
        {role, state_name(row.state), with_storage(row.path, row.storage)});
  };
  add("model", output);
  for (const Row& row : inputs) {
    add("input", row);
  }
  return format_table(rows);
}

std::string Verification::to_json() const {
  using nlohmann::ordered_json;
  const auto describe = [](const Row& row) {
    ordered_json json = {
        {"path", row.path.string()}, {"state", state_name(row.state)}};
    if (!row.problem.empty()) {
      json["problem"] = row.problem;
    }
    if (row.storage != storage_name(FisherStorage::kFloat32)) {
      json["storage"] = row.storage;
    }
    return json;
  };
  ordered_json json = {
      {"good", good()},
      {"model", describe(output)},
      {"inputs", ordered_json::array()}};
  for (const Row& row : inputs) {
    json["inputs"].push_back(describe(row));
  }
  return json_text_replacing(json, 2);
}

Verification verify(const std::filesystem::path& folder) {
  const auto provenance = Provenance::read(folder);
  if (!provenance) {
    throw InputError(fmt::format(
        "{}: no {}; expected a model merged by Merganser",
        folder.string(),
        kProvenanceFile));
  }
  Verification found;
  found.output = check(folder, provenance->content_hash, "");
  Hasher recipe;
  recipe.update(provenance->recipe.data(), provenance->recipe.size());
  if (found.output.state == State::kSame &&
      recipe.digest() != provenance->recipe_hash) {
    found.output.state = State::kChanged;
    found.output.problem = fmt::format(
        "the recipe in {} does not match its hash", kProvenanceFile);
  }
  for (const Provenance::Input& input : provenance->inputs) {
    found.inputs.push_back(check(
        (folder / input.from_output).lexically_normal(),
        input.content_hash,
        input.settings_hash));
    found.inputs.back().path = input.path;
  }
  return found;
}

} // namespace merganser
