#include "merganser/provenance/provenance.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/hash.h"
#include "merganser/io/lora.h"

namespace merganser {
namespace {

using nlohmann::ordered_json;

constexpr int kFormatVersion = 2;

} // namespace

std::string Provenance::to_json() const {
  ordered_json json = {
      {"format_version", kFormatVersion},
      {"merganser_version", version},
      {"identity", identity},
      {"merge_method", method},
      {"output", output},
      {"recipe", recipe},
      {"recipe_hash", recipe_hash},
      {"inputs", ordered_json::array()},
      {"content_hash", content_hash},
      {"clamped", clamped},
      {"largest_weight", largest_weight},
      {"nonfinite", nonfinite}};
  for (const Input& input : inputs) {
    json["inputs"].push_back(
        {{"path", input.path.string()},
         {"from_output", input.from_output.string()},
         {"content_hash", input.content_hash},
         {"settings_hash", input.settings_hash}});
  }
  return json_text_replacing(json, 2);
}

std::string settings_hash(const Checkpoint& input) {
  Hasher hasher;
  bool any = false;
  if (input.metadata().contains("format_version")) {
    for (const auto& [key, value] : input.metadata()) {
      hasher.update(key);
      hasher.update(value);
    }
    any = true;
  }
  const std::filesystem::path config =
      input.files().front().parent_path() / kAdapterConfig;
  if (input.path().filename() == kAdapterWeights &&
      std::filesystem::is_regular_file(config)) {
    hasher.update(read_file(config));
    any = true;
  }
  return any ? hasher.digest() : "";
}

void Provenance::write(const std::filesystem::path& folder) const {
  write_file(folder / kProvenanceFile, to_json() + '\n');
}

std::optional<Provenance> Provenance::read(
    const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / kProvenanceFile;
  if (!std::filesystem::is_regular_file(file)) {
    return std::nullopt;
  }
  try {
    const auto json = parse_json(read_file(file));
    Provenance found;
    if (json.at("format_version") != kFormatVersion) {
      throw InputError(fmt::format(
          "{} has format_version {}; this version of Merganser reads {}",
          file.string(),
          json_text(json.at("format_version")),
          kFormatVersion));
    }
    json.at("merganser_version").get_to(found.version);
    json.at("identity").get_to(found.identity);
    json.at("merge_method").get_to(found.method);
    json.at("output").get_to(found.output);
    json.at("recipe").get_to(found.recipe);
    json.at("recipe_hash").get_to(found.recipe_hash);
    json.at("content_hash").get_to(found.content_hash);
    json.at("clamped").get_to(found.clamped);
    found.largest_weight = json.value("largest_weight", 0.0);
    json.at("nonfinite").get_to(found.nonfinite);
    for (const auto& input : json.at("inputs")) {
      found.inputs.push_back(
          {input.at("path").get<std::string>(),
           input.at("from_output").get<std::string>(),
           input.at("content_hash").get<std::string>(),
           input.at("settings_hash").get<std::string>()});
    }
    return found;
  } catch (const ordered_json::exception& error) {
    throw InputError(fmt::format(
        "{} is damaged: {}", file.string(), std::string(error.what())));
  }
}

} // namespace merganser
