#pragma once

#include <ATen/autocast_mode.h>

#include <string>

#include "merganser/base/api.h"

namespace merganser {

// Whether "bfloat16" (true) or "float32" (false) is meant; InputError for any
// other name.
MERGANSER_API bool parse_bfloat16(const std::string& name);

// While it lives, matrix products of this thread are bfloat16 if `bfloat16`,
// with each weight converted once; LayerNorm, softmax and what else needs the
// range stay float32. It must end before the backward pass begins.
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
