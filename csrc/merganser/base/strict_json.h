#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// Parses JSON text from a file, more strictly than nlohmann::json::parse: an
// object with a duplicate key is refused (the last one would win silently), and
// so is nesting deeper than any file that we read. Throws InputError that names
// `file`. (Core only: users of this include <nlohmann/json.hpp>.)
MERGANSER_API nlohmann::json parse_strict_json(
    std::string_view text,
    const std::string& file);

// Refuses a NUL byte, which JSON does not allow and which nlohmann::json takes
// for the end of the text. Throws InputError that names `file`.
MERGANSER_API void refuse_nul(std::string_view text, const std::string& file);

// Extracts the reason from the text of a nlohmann::json exception, without its
// error number and without the quoted input (which may be long, or not UTF-8):
// "invalid string: ill-formed UTF-8 byte".
MERGANSER_API std::string json_reason(std::string_view what);

} // namespace merganser
