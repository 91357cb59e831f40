#include "merganser/base/json_reason.h"

namespace merganser {

std::string json_reason(std::string_view what) {
  const size_t number = what.find("] ");
  if (number != std::string_view::npos) {
    what.remove_prefix(number + 2);
  }
  what = what.substr(0, what.find("; last read:"));
  const size_t place = what.find(" - ");
  if (place != std::string_view::npos) {
    what.remove_prefix(place + 3);
  }
  return std::string(what);
}

} // namespace merganser
