#include "merganser/provenance/inspect.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"
#include "merganser/io/hash.h"

namespace merganser {

Inspection inspect(const std::filesystem::path& path, bool hashes) {
  const Checkpoint checkpoint(path);
  Inspection found;
  found.path = path;
  found.tensors = checkpoint.tensors();
  found.metadata = checkpoint.metadata();
  for (const TensorInfo& tensor : found.tensors) {
    found.parameters += tensor.numel();
    found.bytes += checkpoint.at(tensor.name).stored_bytes();
  }
  for (const auto& file : checkpoint.files()) {
    found.files.emplace_back(file, hashes ? hash_file(file) : "");
  }
  found.provenance = Provenance::read(path);
  if (hashes) {
    found.content_hash = checkpoint.content_hash();
  }
  return found;
}

std::string Inspection::to_text() const {
  std::vector<std::vector<std::string>> rows = {{"tensor", "type", "shape"}};
  for (const TensorInfo& tensor : tensors) {
    rows.push_back(
        {tensor.name,
         std::string(dtype_name(tensor.dtype)),
         tensor.shape_text()});
  }
  std::string text = format_table(rows) + '\n';
  rows.clear();
  for (const auto& [key, value] : metadata) {
    rows.push_back({key, value});
  }
  if (!rows.empty()) {
    text += "metadata\n" + format_table(rows) + '\n';
  }
  rows.clear();
  for (const auto& [file, hash] : files) {
    rows.push_back({file.string(), hash});
  }
  text += format_table(rows);
  text += fmt::format(
      "{} tensors, {} elements, {}\n",
      tensors.size(),
      parameters,
      format_bytes(bytes));
  if (content_hash) {
    text += fmt::format("content hash {}\n", *content_hash);
  }
  if (provenance) {
    text += fmt::format(
        "\nmerged by {}, Merganser {}, recipe {}\n",
        provenance->method,
        provenance->version,
        provenance->recipe_hash);
    rows.clear();
    for (const Provenance::Input& input : provenance->inputs) {
      rows.push_back({"from " + input.path.string(), input.content_hash});
    }
    text += format_table(rows);
  }
  return text;
}

std::string Inspection::to_json() const {
  using nlohmann::ordered_json;
  ordered_json json = {
      {"path", path.string()},
      {"tensors", ordered_json::array()},
      {"metadata", metadata},
      {"files", ordered_json::array()},
      {"parameters", parameters},
      {"bytes", bytes}};
  for (const TensorInfo& tensor : tensors) {
    json["tensors"].push_back(
        {{"name", tensor.name},
         {"dtype", dtype_name(tensor.dtype)},
         {"shape", tensor.shape}});
  }
  for (const auto& [file, hash] : files) {
    json["files"].push_back({{"file", file.string()}});
    if (!hash.empty()) {
      json["files"].back()["xxh3_128"] = hash;
    }
  }
  if (content_hash) {
    json["content_hash"] = *content_hash;
  }
  if (provenance) {
    json["merged"] = parse_json(provenance->to_json());
  }
  return json_text_replacing(json, 2);
}

} // namespace merganser
