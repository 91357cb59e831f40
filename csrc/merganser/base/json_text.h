#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "merganser/base/api.h"

// nlohmann's parser and serializer as two plain functions: their templates take
// seconds to compile in every file that instantiates them.
namespace merganser {

// Parses as nlohmann::ordered_json::parse does; throws its parse_error.
MERGANSER_API nlohmann::ordered_json parse_json(std::string_view text);

// A discarded value (no object, array, ...) instead of an exception.
MERGANSER_API nlohmann::ordered_json parse_json_or_discard(
    std::string_view text);

// The same with sorted keys.
MERGANSER_API nlohmann::json parse_sorted_json_or_discard(
    std::string_view text);

// Serializes as dump of nlohmann's classes does; indent -1: one line.
MERGANSER_API std::string json_text(
    const nlohmann::ordered_json& json,
    int indent = -1);
MERGANSER_API std::string json_text(
    const nlohmann::json& json,
    int indent = -1);

// Bytes that are not UTF-8 become U+FFFD instead of an exception.
MERGANSER_API std::string json_text_replacing(
    const nlohmann::ordered_json& json,
    int indent);

} // namespace merganser
