#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "merganser/base/api.h"

// Text that plan, inspect and methods print.
namespace merganser {

// Aligns columns to their widest cell, with two spaces between them.
MERGANSER_API std::string format_table(
    const std::vector<std::vector<std::string>>& rows);

std::string format_bytes(uint64_t bytes); // "91.2 MB"

} // namespace merganser
