#pragma once

#include <cstdint>
#include <filesystem>

#include "merge/plan.h"

// What a merge checks before it writes and a plan leaves out.
namespace merganser {

// A Fisher belongs to the very weights that it was taken of. Its metadata name
// their hash, where it is known; finding that of the model reads the whole
// model. Throws InputError naming both files.
void check_fishers(const MergePlan& plan, int threads);

// Throws Error when the disk of `out` has less than `needed` bytes free.
void check_space(const std::filesystem::path& out, uint64_t needed);

} // namespace merganser
