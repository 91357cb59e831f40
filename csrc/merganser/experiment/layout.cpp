#include "merganser/experiment/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace merganser::layout {

void check_name(const YamlValue& place, const std::string& name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  if (name.find_first_not_of(kAllowed) != std::string::npos ||
      name.starts_with('.') || name.ends_with(".partial") || name.empty()) {
    place.fail(fmt::format(
        "invalid name '{}': use letters, digits, '_', '-' and '.', with no '.' "
        "at the start and no '.partial' at the end",
        name));
  }
}

} // namespace merganser::layout
