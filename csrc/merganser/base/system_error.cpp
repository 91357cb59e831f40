#include "merganser/base/system_error.h"

#include <cerrno>
#include <system_error>

namespace merganser {

std::string errno_text() {
  return std::generic_category().message(errno);
}

} // namespace merganser
