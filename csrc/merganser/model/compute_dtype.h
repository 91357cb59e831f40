#pragma once

#include <string>

#include "merganser/base/api.h"

namespace merganser {

// Whether "bfloat16" (true) or "float32" (false) is meant; InputError for any
// other name.
MERGANSER_API bool parse_bfloat16(const std::string& name);

} // namespace merganser
