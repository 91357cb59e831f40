#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>

namespace merganser::app {

// Nothing for other text and for numbers that do not fit.
inline std::optional<uint64_t> parse_whole_number(const std::string& text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end ? std::optional(value)
                                             : std::nullopt;
}

// Checks an option's value; from_chars also refuses what strtoull reads as
// another number, such as -1.
inline CLI::Validator whole_number(uint64_t min, uint64_t max) {
  const std::string range = max == UINT64_MAX
      ? fmt::format("of at least {}", min)
      : fmt::format("from {} to {}", min, max);
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        const auto value = parse_whole_number(text);
        return value && *value >= min && *value <= max
            ? ""
            : fmt::format("expected a whole number {}, got '{}'", range, text);
      },
      max == UINT64_MAX ? fmt::format(">= {}", min)
                        : fmt::format("in [{} - {}]", min, max));
}

} // namespace merganser::app
