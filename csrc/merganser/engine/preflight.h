#pragma once

#include <cstdint>
#include <filesystem>

// What a merge checks before it writes and a plan does not know.
namespace merganser {

// Throws Error when the disk of `out` has less than `needed` bytes free.
void check_space(const std::filesystem::path& out, uint64_t needed);

} // namespace merganser
