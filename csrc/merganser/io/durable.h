#pragma once

#include <filesystem>

#include "merganser/base/api.h"

namespace merganser {

// "a/b/", "." and "a/../b" as an absolute path with a parent and a name.
MERGANSER_API std::filesystem::path with_name(
    const std::filesystem::path& path);

// A name in the folder of `path` that nothing has: hidden, ending in .tmp.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

// Removes what processes that were killed left under such names. Only for paths
// that no other process is writing.
MERGANSER_API void remove_temporaries_beside(const std::filesystem::path& path);

// fsync of a file or folder; throws Error.
MERGANSER_API void sync_to_disk(const std::filesystem::path& path);

// Of a folder and everything below it.
MERGANSER_API void sync_all_to_disk(const std::filesystem::path& folder);

} // namespace merganser
