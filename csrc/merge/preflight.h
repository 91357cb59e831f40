#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "merge/plan.h"

// What a merge checks before it writes and a plan leaves out.
namespace merganser {

// A Fisher belongs to the very weights that it was taken of. Its metadata name
// their content hash, where it is known. `hash_of`: that of one of
// plan.inputs, or its first half, which finds nearly all that is wrong without
// reading the model. Throws InputError naming both files.
void check_fishers(
    const MergePlan& plan,
    const std::function<std::string(size_t input)>& hash_of);

// Throws Error when the disk of `out` has less than `needed` bytes free.
void check_space(const std::filesystem::path& out, uint64_t needed);

} // namespace merganser
