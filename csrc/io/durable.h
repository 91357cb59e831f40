#pragma once

#include <filesystem>

namespace merganser {

// A name in the folder of `path` that nothing has: hidden, ending in .tmp.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

// fsync of a file or folder; throws Error.
void sync_to_disk(const std::filesystem::path& path);

} // namespace merganser
