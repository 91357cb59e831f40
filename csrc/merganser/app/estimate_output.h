#pragma once

#include <filesystem>
#include <functional>

namespace merganser::app {

// Checks the output path of a long estimation before it begins, and creates its
// directory. `is_ours`: true if the existing file is of the kind that will be
// written; others, such as models and data, are never overwritten. Throws
// InputError.
void check_output(
    const std::filesystem::path& out,
    const std::function<bool()>& is_ours);

} // namespace merganser::app
