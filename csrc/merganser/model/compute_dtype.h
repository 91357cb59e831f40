#pragma once

#include <string>

#include "merganser/base/api.h"

namespace merganser {

// Parses "bfloat16" (true) or "float32" (false). Throws InputError for any
// other name.
MERGANSER_API bool parse_bfloat16(const std::string& name);

} // namespace merganser
