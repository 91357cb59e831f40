#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace merganser {

// Allows for a share of `expected`'s norm: the rounding of its type.
inline void expect_close(const at::Tensor& actual, const at::Tensor& expected) {
  const double tolerance = expected.scalar_type() == at::kDouble ? 1e-7 : 1e-5;
  const double error = (actual - expected).norm().item<double>();
  EXPECT_LE(error, tolerance * expected.norm().item<double>());
}

} // namespace merganser
