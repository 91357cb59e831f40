#include "io/version.h"

namespace merganser {

const char* version() {
  return MERGANSER_VERSION;
}

} // namespace merganser
