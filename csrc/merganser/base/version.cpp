#include "merganser/base/version.h"

namespace merganser {

const char* version() {
  return MERGANSER_VERSION;
}

} // namespace merganser
