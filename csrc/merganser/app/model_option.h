#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "merganser/io/hub_cache.h"

namespace merganser::app {

// Adds an option for model directories, which may also be named as on the Hub.
template <typename Value>
CLI::Option* add_model(
    CLI::App& parser,
    const char* name,
    Value& value,
    const char* help) {
  const auto find = [](std::string& text) {
    text = find_model(text).string();
    return std::string(); // no error; find_model throws its own
  };
  return parser.add_option(name, value, help)
      ->transform(CLI::Validator(find, ""))
      ->type_name("DIR|OWNER/NAME");
}

} // namespace merganser::app
