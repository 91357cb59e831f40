#include "merganser/io/header_only.h"

#include <nlohmann/json.hpp>

#include "merganser/io/atomic_file.h"
#include "merganser/io/hub_cache.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// headers/COMMIT.json next to snapshots/COMMIT. Repositories have no file
// there.
fs::path description_of(const fs::path& folder) {
  fs::path file = folder.parent_path().parent_path() / "headers";
  return (file /= folder.filename()) += ".json";
}

// `path` is the directory, a file in it, or one in a module's directory.
std::optional<fs::path> directory_of(const fs::path& path) {
  fs::path folder = path;
  for (int levels = 0; levels < 3; ++levels) {
    std::error_code ignored;
    if (hub_name_of(folder) && fs::exists(description_of(folder), ignored)) {
      return folder;
    }
    folder = folder.parent_path();
  }
  return std::nullopt;
}

HeaderOnly read_description(const fs::path& folder) {
  const auto json = nlohmann::json::parse(read_file(description_of(folder)));
  HeaderOnly found;
  json.at("model").get_to(found.model);
  json.at("bytes").get_to(found.bytes);
  json.at("sizes").get_to(found.sizes);
  return found;
}

} // namespace

std::optional<HeaderOnly> find_header_only(const fs::path& path) {
  const auto folder = directory_of(path);
  return folder ? std::optional(read_description(*folder)) : std::nullopt;
}

std::optional<uint64_t> whole_size(const fs::path& file) {
  const auto folder = directory_of(file);
  if (!folder) {
    return std::nullopt;
  }
  const auto sizes = read_description(*folder).sizes;
  const auto size =
      sizes.find(file.lexically_relative(*folder).generic_string());
  return size == sizes.end() ? std::nullopt : std::optional(size->second);
}

} // namespace merganser
