#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "merganser/base/api.h"

// Models of the Hub before their download: directories with the small files,
// and with safetensors files that end after their headers. The Python package
// writes them for the time of a plan (_hub/headers.py). Readers of headers take
// such files for whole ones; a read of data fails, as the file ends before it.
namespace merganser {

struct HeaderOnly {
  std::string model; // as the recipe names it
  uint64_t bytes = 0; // to download
  std::map<std::string, uint64_t> sizes; // of the whole safetensors files
};

// The description of such a directory, which `path` or a file in it names;
// nothing for other paths.
MERGANSER_API std::optional<HeaderOnly> find_header_only(
    const std::filesystem::path& path);

// The size of the whole file of which `file` has only the header; nothing for
// other files.
MERGANSER_API std::optional<uint64_t> whole_size(
    const std::filesystem::path& file);

} // namespace merganser
