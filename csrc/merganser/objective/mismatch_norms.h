#pragma once

#include <ATen/core/Tensor.h>

#include "merganser/base/api.h"
#include "merganser/objective/mismatch_result.h"

namespace merganser {

// Sums of squares, in float64, from which MismatchNorms follow.
class MERGANSER_API SquareTotals {
 public:
  // Adds elements [offset, offset + numel) of flat arrays; `explained` and
  // `precision` (H_0) may be undefined, in every call or in none.
  void add(
      const at::Tensor& mismatch,
      const at::Tensor& explained,
      const at::Tensor& precision,
      int64_t offset,
      int64_t numel);
  void add(const SquareTotals& other);
  MismatchNorms norms() const;

 private:
  struct Sums {
    double two = 0; // sum v^2
    double inverse = 0; // sum v^2 / H_0 where H_0 > 0
    void add(double square, float precision);
  };
  VectorNorms norms_of(const Sums& sums) const;

  bool has_explained_ = false;
  bool has_precision_ = false;
  Sums mismatch_, explained_, rest_;
  double without_ = 0; // sum m^2 where H_0 = 0
};

// Sets precisions of at most 1e-12 of the mean over `count` parameters to zero,
// in place: they are squares of rounding errors, such as those of attention's
// key biases, whose gradient is zero, and m^2 / H_0 would be arbitrary.
MERGANSER_API void clear_rounding(const at::Tensor& precision, int64_t count);

// Compares target - arithmetic with -mismatch / precision where precision > 0.
MERGANSER_API TargetIdentity compare_identity(
    const at::Tensor& target,
    const at::Tensor& arithmetic,
    const at::Tensor& mismatch,
    const at::Tensor& precision);

} // namespace merganser
