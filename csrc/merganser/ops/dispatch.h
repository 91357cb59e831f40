#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

namespace merganser::ops {

// Min elements per thread, ATen's value.
constexpr int64_t kGrain = 32768;

// Calls f.template operator()<T, In>() with the C++ types of an accumulator and
// of an input from kernel_input().
template <typename F>
void dispatch_types(
    const at::Tensor& accumulator,
    const at::Tensor& input,
    F&& f) {
  if (accumulator.scalar_type() == at::kDouble) {
    f.template operator()<double, double>();
  } else if (input.scalar_type() == at::kBFloat16) {
    f.template operator()<float, c10::BFloat16>();
  } else if (input.scalar_type() == at::kHalf) {
    f.template operator()<float, c10::Half>();
  } else {
    TORCH_INTERNAL_ASSERT(input.scalar_type() == at::kFloat);
    f.template operator()<float, float>();
  }
}

} // namespace merganser::ops
