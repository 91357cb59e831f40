#include "merganser/model/autocast.h"

namespace merganser {

Autocast::Autocast(at::DeviceType device, bool bfloat16)
    : device_(device),
      enabled_before_(at::autocast::is_autocast_enabled(device)),
      dtype_before_(at::autocast::get_autocast_dtype(device)) {
  at::autocast::increment_nesting();
  at::autocast::set_autocast_enabled(device, bfloat16);
  at::autocast::set_autocast_dtype(device, at::kBFloat16);
}

Autocast::~Autocast() {
  // The converted weights are held until the outermost region ends.
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
  at::autocast::set_autocast_dtype(device_, dtype_before_);
  at::autocast::set_autocast_enabled(device_, enabled_before_);
}

} // namespace merganser
