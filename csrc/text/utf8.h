#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "io/api.h"

namespace merganser {

// The offset of the first byte that is not well-formed UTF-8.
MERGANSER_API std::optional<size_t> find_ill_formed_utf8(std::string_view text);

} // namespace merganser
