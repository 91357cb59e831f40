#pragma once

// Shared by the tests of the kernels: arrays of every type, aligned or not,
// without a margin, so that the address sanitizer finds reads beyond the end.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <type_traits>

#include "emulator.h"

namespace merganser::kernels {

using InputTypes = testing::Types<float, double, __nv_bfloat16, __half>;

// Type of the computation, by the type of the inputs.
template <typename In>
using Accumulator =
    std::conditional_t<std::is_same_v<In, double>, double, float>;

inline double to_double(double x) {
  return x;
}
inline double to_double(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
inline double to_double(__half x) {
  return __half2float(x);
}

// n elements that begin `offset` elements after a multiple of 256 bytes.
template <typename T>
class Array {
 public:
  explicit Array(int64_t n, int offset = 0)
      : n_(n),
        offset_(offset),
        memory_(static_cast<T*>(
            ::operator new ((n + offset) * sizeof(T), std::align_val_t{256}))) {
    std::uninitialized_value_construct_n(memory_.get(), n + offset);
  }
  Array(const Array& other) : Array(other.n_, other.offset_) {
    std::copy(other.begin(), other.end(), data());
  }
  Array(Array&&) = default;

  T* data() {
    return memory_.get() + offset_;
  }
  const T* data() const {
    return memory_.get() + offset_;
  }
  const T* begin() const {
    return data();
  }
  const T* end() const {
    return data() + n_;
  }
  T& operator[](int64_t i) {
    return data()[i];
  }
  const T& operator[](int64_t i) const {
    return data()[i];
  }
  int64_t size() const {
    return n_;
  }

 private:
  struct Delete {
    void operator()(T* memory) const {
      ::operator delete (memory, std::align_val_t{256});
    }
  };
  int64_t n_;
  int offset_;
  std::unique_ptr<T, Delete> memory_;
};

template <typename T>
Array<T> random_numbers(
    int64_t n,
    int offset,
    int seed,
    double min = -2,
    double max = 2) {
  std::mt19937 random(static_cast<unsigned>(n + 1000 * seed));
  std::uniform_real_distribution<double> draw(min, max);
  Array<T> numbers(n, offset);
  for (int64_t i = 0; i < n; ++i) {
    numbers[i] = static_cast<T>(draw(random));
  }
  return numbers;
}

// Random numbers with a NaN, infinities, zeros and a subnormal.
template <typename T>
Array<T> hard_numbers(int64_t n, int offset, int seed) {
  Array<T> numbers = random_numbers<T>(n, offset, seed);
  const float infinity = std::numeric_limits<float>::infinity();
  const float special[] = {
      std::numeric_limits<float>::quiet_NaN(),
      infinity,
      -infinity,
      0,
      -0.0f,
      1e-41f};
  for (int64_t i = 0; i < 6 && 7 * i + 2 < n; ++i) {
    numbers[7 * i + 2] = static_cast<T>(special[i]);
  }
  return numbers;
}

// Expects the same bits; any NaN equals any other.
template <typename T>
void expect_same_bits(const Array<T>& found, const Array<T>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (int64_t i = 0; i < found.size(); ++i) {
    const double x = to_double(found[i]);
    const double y = to_double(expected[i]);
    ASSERT_TRUE(
        (std::isnan(x) && std::isnan(y)) ||
        (x == y && std::signbit(x) == std::signbit(y)))
        << x << ", expected " << y << ", element " << i << " of "
        << found.size();
  }
}

// Expects near values: the order of sums is free.
template <typename T>
void expect_near(
    const Array<T>& found,
    const Array<double>& expected,
    double relative) {
  ASSERT_EQ(found.size(), expected.size());
  for (int64_t i = 0; i < found.size(); ++i) {
    const double x = to_double(found[i]);
    const double y = expected[i];
    ASSERT_TRUE(
        (std::isnan(x) && std::isnan(y)) || x == y ||
        std::abs(x - y) <= relative * (1 + std::abs(y)))
        << x << ", expected " << y << ", element " << i << " of "
        << found.size();
  }
}

// Runs `test` with the threads of each block in both orders: a missing barrier
// changes the result.
template <typename F>
void in_both_orders(const F& test) {
  for (const auto order :
       {emulator::Order::kAscending, emulator::Order::kDescending}) {
    emulator::order = order;
    test();
  }
  emulator::order = emulator::Order::kAscending;
}

} // namespace merganser::kernels
