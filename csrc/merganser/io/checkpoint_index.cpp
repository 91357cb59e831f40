#include "merganser/io/checkpoint_index.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/base/strict_json.h"
#include "merganser/io/atomic_file.h"

namespace fs = std::filesystem;

namespace merganser {

namespace {

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw InputError(fmt::format("{}: {}", path.string(), what));
}

} // namespace

CheckpointIndex read_checkpoint_index(const fs::path& path) {
  const nlohmann::json json = parse_strict_json(read_file(path), path.string());
  const auto map = json.find("weight_map");
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    fail(path, "has no object \"weight_map\"");
  }
  CheckpointIndex index;
  std::set<std::string> shards;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string()) {
      fail(path, fmt::format("tensor {}: expected a file name", quote(name)));
    }
    const auto& file = shard.get_ref<const std::string&>();
    const fs::path as_path(file);
    if (as_path.filename() != as_path ||
        as_path.extension() != ".safetensors") {
      fail(
          path,
          fmt::format(
              "tensor {}: {} is not the plain name of a .safetensors file; an "
              "index may only name files of its own directory",
              quote(name),
              quote(file)));
    }
    shards.insert(file);
    index.shard_of.emplace(name, file);
  }
  index.shards.assign(shards.begin(), shards.end());
  return index;
}

std::string format_checkpoint_index(const CheckpointIndex& index) {
  const nlohmann::json json = {
      {"metadata", {{"total_size", index.total_size}}},
      {"weight_map", index.shard_of}};
  return json_text(json, 2) + "\n";
}

bool is_checkpoint_index(const fs::path& path) {
  return path.string().ends_with(kIndexSuffix);
}

fs::path find_weights(const fs::path& folder) {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json"}) {
    if (fs::exists(folder / name)) {
      return folder / name;
    }
  }
  std::vector<fs::path> indices;
  std::vector<fs::path> files;
  bool pickled = false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.filename().string().starts_with(".")) {
      continue; // a temporary file of a killed writer
    }
    if (is_checkpoint_index(path)) {
      indices.push_back(path);
    } else if (path.extension() == ".safetensors") {
      files.push_back(path);
    }
    pickled |= path.filename() == "pytorch_model.bin";
  }
  const auto& candidates = indices.empty() ? files : indices;
  if (candidates.size() == 1) {
    return candidates.front();
  }
  if (candidates.empty()) {
    fail(
        folder,
        pickled
            ? "has only pytorch_model.bin; save the model as safetensors, with "
              "save_pretrained of a current transformers"
            : "contains no .safetensors file; save the model there with "
              "save_pretrained of transformers");
  }
  std::vector<std::string> names;
  for (const fs::path& path : candidates) {
    names.push_back(path.filename().string());
  }
  std::ranges::sort(names);
  fail(
      folder,
      fmt::format(
          "contains no model.safetensors but several other files ({}); name "
          "one of them",
          fmt::join(names, ", ")));
}

} // namespace merganser
