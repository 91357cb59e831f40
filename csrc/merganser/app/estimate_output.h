#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace merganser::app {

// Checks the output path of a long estimation before it begins, and creates its
// directory. `kind`: of file ("Fisher file"); `is_ours`: true if the existing
// file is of this kind. Others, such as models and data, are never overwritten.
// Throws InputError.
void check_output(
    const std::filesystem::path& out,
    std::string_view kind,
    const std::function<bool()>& is_ours);

} // namespace merganser::app
