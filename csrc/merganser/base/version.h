#pragma once

#include "merganser/base/api.h"

namespace merganser {

// "0.1.0"
MERGANSER_API const char* version();

} // namespace merganser
