#pragma once

#include <string>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// `text` in quotation marks for a message: control characters are escaped, so
// that a hostile tensor name cannot steer the terminal, and what is longer than
// a line is cut.
MERGANSER_API std::string quote(std::string_view text);

} // namespace merganser
