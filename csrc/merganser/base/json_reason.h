#pragma once

#include <string>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// What is wrong, out of the text of a nlohmann::json exception, without its
// error number and without a repetition of the input (which may be long, or not
// UTF-8): "invalid string: ill-formed UTF-8 byte".
MERGANSER_API std::string json_reason(std::string_view what);

} // namespace merganser
