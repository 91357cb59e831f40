#pragma once

#include <ATen/autocast_mode.h>

#include "merganser/base/api.h"

namespace merganser {

// While it exists, this thread's matrix products are bfloat16 if `bfloat16`,
// with each weight converted once; LayerNorm, softmax and other ops that need
// the range stay float32. It must end before the backward pass begins.
class MERGANSER_API Autocast {
 public:
  Autocast(at::DeviceType device, bool bfloat16);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  at::DeviceType device_;
  bool enabled_before_;
  at::ScalarType dtype_before_;
};

} // namespace merganser
