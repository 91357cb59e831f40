#pragma once

#include <string>

namespace merganser {

// The text of errno ("No space left on device").
std::string errno_text();

} // namespace merganser
