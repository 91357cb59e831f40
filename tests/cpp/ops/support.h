#pragma once

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <vector>

// Shared by the tests of the ops: sizes around the steps of loops, inputs, and
// the comparison of bits.
namespace merganser::ops {

inline const std::vector<int64_t> kSizes = {0, 1, 3, 255, 256, 257, 65537};
inline const std::vector<at::ScalarType> kInputTypes = {
    at::kFloat,
    at::kBFloat16,
    at::kHalf};

// Normal numbers with a NaN, infinities, zeros and a subnormal, at an odd
// offset into their storage, so that no vector load is aligned.
inline at::Tensor hard_numbers(int64_t n, at::ScalarType type) {
  at::Tensor storage = at::randn({n + 1}, at::kDouble).to(type);
  at::Tensor x = storage.narrow(0, 1, n);
  const float infinity = std::numeric_limits<float>::infinity();
  const float special[] = {
      std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, 0, 1e-41f};
  for (int64_t i = 0; i < 5 && 7 * i + 2 < n; ++i) {
    x[7 * i + 2] = special[i];
  }
  return x;
}

// True for the same bits; any NaN equals any other.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) {
    return false;
  }
  const auto integers = [](const at::Tensor& x) {
    const int64_t size = x.element_size();
    return x.contiguous().view(
        size == 2       ? at::kShort
            : size == 4 ? at::kInt
                        : at::kLong);
  };
  return integers(a)
      .eq(integers(b))
      .logical_or(a.isnan().logical_and(b.isnan()))
      .all()
      .item<bool>();
}

// Sets the number of threads for a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) {
    at::set_num_threads(count);
  }
  ~Threads() {
    at::set_num_threads(before_);
  }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

} // namespace merganser::ops
