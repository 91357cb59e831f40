#include "merganser/ops/ops.h"

namespace merganser::ops {

bool has_cuda() {
  return false;
}

} // namespace merganser::ops
