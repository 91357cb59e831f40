#pragma once

#include <cstdint>
#include <string>
#include <vector>

// Text for people: what plan and inspect print.
namespace merganser {

// Columns as wide as their widest cell, two spaces between them.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

std::string format_bytes(uint64_t bytes); // "91.2 MB"

} // namespace merganser
