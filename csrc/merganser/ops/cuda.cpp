#include "merganser/ops/ops.h"

namespace merganser::ops {

bool has_cuda() {
  return true;
}

} // namespace merganser::ops
