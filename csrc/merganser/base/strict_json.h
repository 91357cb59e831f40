#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// Parses JSON text from a file, more strictly than nlohmann::json::parse: an
// object with the same key twice is refused (the last one would win silently),
// and so is nesting deeper than any file of ours has. Throws InputError that
// names `file`. (Core only: users of this include <nlohmann/json.hpp>.)
MERGANSER_API nlohmann::json parse_strict_json(
    std::string_view text,
    const std::string& file);

// nlohmann::json takes a NUL byte for the end of the text and would not look at
// what follows; JSON has none. Throws InputError that names `file`.
MERGANSER_API void refuse_nul(std::string_view text, const std::string& file);

// What is wrong, out of the text of a nlohmann::json exception, without its
// error number and without a repetition of the input (which may be long, or not
// UTF-8): "invalid string: ill-formed UTF-8 byte".
MERGANSER_API std::string json_reason(std::string_view what);

} // namespace merganser
