#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// Quotes `text` for a message: control characters are escaped, so that a
// hostile tensor name cannot control the terminal, and long text is truncated.
MERGANSER_API std::string quote(std::string_view text);

// Lists up to five of `names`: "a, b, c, d, e and 12 more".
MERGANSER_API std::string list_some(const std::vector<std::string>& names);

} // namespace merganser
