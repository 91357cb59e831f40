#pragma once

#include <filesystem>

#include "merganser/base/api.h"

// Files in which tokenizers store what an id stands for.
namespace merganser {

// True for the names of such files, of every kind of tokenizer.
MERGANSER_API bool is_vocabulary(const std::filesystem::path& file);

// Compares two of one name by their contents, as libraries of any version read
// them: merges as "a b" or ["a", "b"], escapes in JSON, comments, line breaks,
// defaults and settings of the last use do not count.
MERGANSER_API bool same_vocabulary(
    const std::filesystem::path& a,
    const std::filesystem::path& b);

} // namespace merganser
