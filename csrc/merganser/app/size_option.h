#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>

#include "merganser/app/whole_number.h"

namespace merganser::app {

// Adds an option for a number of bytes greater than 0: "5000000000", "5GB". The
// unit B alone is refused: for the shards of mergekit "5B" are 5e9 parameters,
// not five bytes.
inline void add_size(
    CLI::App& parser,
    const char* name,
    uint64_t& bytes,
    const std::string& help,
    const std::string& example,
    bool kb_is_1000,
    bool of_mergekit = false) {
  const CLI::AsSizeValue size(kb_is_1000);
  const auto parse = [=](std::string& text) -> std::string {
    const std::string given = text;
    const size_t end = given.find_first_not_of("0123456789");
    const std::string unit =
        end == given.npos ? "" : CLI::detail::trim_copy(given.substr(end));
    const bool only_b = end != 0 && (unit == "b" || unit == "B");
    const auto number = parse_whole_number(given.substr(0, end));
    bool valid = number != 0u && !only_b && end != 0;
    try {
      // Whole numbers only; the product with the unit may be too large.
      valid = valid && number && size(text).empty();
    } catch (const CLI::ValidationError&) {
      valid = false;
    }
    if (valid) {
      return "";
    }
    return fmt::format(
        "expected a whole number of bytes from 1 to 2^64 - 1, such as {}, got "
        "'{}'{}",
        example,
        given,
        only_b && of_mergekit
            ? " (in mergekit B counts parameters; here, give bytes)"
            : "");
  };
  parser.add_option(name, bytes, fmt::format("{} (such as {})", help, example))
      ->transform(CLI::Validator(parse, "SIZE"));
}

} // namespace merganser::app
