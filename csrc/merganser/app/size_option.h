#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace merganser::app {

// Adds an option for a number of bytes greater than 0: "5000000000", "5GB". The
// unit B alone is refused: in mergekit "5B" are 5e9 parameters, not five bytes.
inline void add_size(
    CLI::App& parser,
    const char* name,
    uint64_t& bytes,
    const std::string& help,
    const std::string& example,
    bool kb_is_1000) {
  const CLI::AsSizeValue size(kb_is_1000);
  const auto parse = [size, example](std::string& text) -> std::string {
    const std::string given = text;
    const bool unit = given.find_first_of("kKmMgGtTpPeEiI") != given.npos;
    const bool only_b = !unit && given.find_first_of("bB") != given.npos;
    bool valid = !only_b && !given.starts_with('-');
    try {
      valid = valid && size(text).empty() &&
          text.find_first_not_of('0') != text.npos;
    } catch (const CLI::ValidationError&) {
      valid = false;
    }
    if (valid) {
      return "";
    }
    return fmt::format(
        "expected a size greater than 0, such as {}, got '{}'{}",
        example,
        given,
        only_b ? " (in mergekit B counts parameters; here, give bytes)" : "");
  };
  parser.add_option(name, bytes, fmt::format("{} (such as {})", help, example))
      ->transform(CLI::Validator(parse, "SIZE"));
}

} // namespace merganser::app
