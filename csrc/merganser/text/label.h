#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "merganser/text/dataset.h"

namespace merganser {

// Throws InputError "FILE:LINE: what".
[[noreturn]] void fail_at_line(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view what);

// Read the label of a line: a whole number that fits int32, or one of `names`,
// with its number. Throw InputError for any other.
int64_t read_json_label(
    const std::filesystem::path& path,
    int64_t line,
    const nlohmann::json& label,
    const LabelNames& names);
int64_t read_table_label(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view label,
    const LabelNames& names);

} // namespace merganser
