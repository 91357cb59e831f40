// The emulator shows errors that would go wrong on a GPU.

#include <stdexcept>
#include <vector>

#include "arrays.h"
#include "merganser/kernels/device.cuh"

namespace merganser::kernels {
namespace {

constexpr int kThreads = 64;

void half_waits(int* /*out*/) {
  if (threadIdx.x < kThreads / 2) {
    __syncthreads();
  }
}

TEST(Emulator, ThrowsWhereABarrierIsNotReached) {
  EXPECT_THROW(
      launch({1, kThreads, nullptr}, half_waits, nullptr), std::runtime_error);
}

struct Numbers {
  float x[kThreads];
};

template <bool kBarrier>
void reverse(float* out) {
  auto& numbers = block_shared<Numbers>();
  numbers.x[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (kBarrier) {
    __syncthreads();
  }
  out[threadIdx.x] = numbers.x[kThreads - 1 - threadIdx.x];
}

TEST(Emulator, ShowsAMissingBarrier) {
  in_both_orders([] {
    std::vector<float> out(kThreads);
    launch({2, kThreads, nullptr}, reverse<true>, out.data());
    EXPECT_EQ(out[0], kThreads - 1);
    EXPECT_EQ(out[kThreads - 1], 0);
    launch({2, kThreads, nullptr}, reverse<false>, out.data());
    EXPECT_TRUE(std::isnan(out[0]) || std::isnan(out[kThreads - 1]));
  });
}

template <bool kWait>
void copy(const float* in, float* out) {
  auto& numbers = block_shared<Numbers>();
  copy_async<4>(&numbers.x[threadIdx.x], in + threadIdx.x);
  commit_copies();
  if (kWait) {
    wait_for_copies<0>();
  }
  out[threadIdx.x] = numbers.x[threadIdx.x];
}

TEST(Emulator, ShowsACopyThatWasNotWaitedFor) {
  const std::vector<float> in(kThreads, 3);
  std::vector<float> out(kThreads);
  launch({1, kThreads, nullptr}, copy<true>, in.data(), out.data());
  EXPECT_EQ(out, in);
  launch({1, kThreads, nullptr}, copy<false>, in.data(), out.data());
  EXPECT_TRUE(std::isnan(out[0]));
}

// C (16, 8) = A^T B with A (16, 16) and B (16, 8) in shared memory, one row per
// token, loaded as the kernels do.
template <typename In>
struct Operands {
  alignas(16) In a[16][16];
  alignas(16) In b[16][16]; // two matrices B, next to each other
};

template <typename In>
void product(const Operands<In>* in, float* out) {
  const int lane = threadIdx.x;
  const int matrix = lane / 8;
  uint32_t a[4], b[4];
  load_transposed(a, &in->a[matrix / 2 * 8 + lane % 8][matrix % 2 * 8]);
  load_transposed(b, &in->b[matrix % 2 * 8 + lane % 8][matrix / 2 * 8]);
  for (int j = 0; j < 2; ++j) {
    float sums[4] = {};
    multiply_add<In>(sums, a, {b[2 * j], b[2 * j + 1]});
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      out[row * 16 + j * 8 + lane % 4 * 2 + i % 2] = sums[i];
    }
  }
}

template <typename In>
void compare_product() {
  Operands<In> in;
  const auto numbers = random_numbers<In>(512, 0, 0);
  std::copy(numbers.begin(), numbers.begin() + 256, &in.a[0][0]);
  std::copy(numbers.begin() + 256, numbers.end(), &in.b[0][0]);
  std::vector<float> out(256);
  launch({1, 32, nullptr}, product<In>, &in, out.data());
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      double sum = 0;
      for (int k = 0; k < 16; ++k) {
        sum += to_double(in.a[k][i]) * to_double(in.b[k][j]);
      }
      EXPECT_FLOAT_EQ(out[i * 16 + j], sum) << i << ", " << j;
    }
  }
}

TEST(Emulator, MultipliesAsTensorCoresDo) {
  compare_product<__nv_bfloat16>();
  compare_product<__half>();
}

} // namespace
} // namespace merganser::kernels
