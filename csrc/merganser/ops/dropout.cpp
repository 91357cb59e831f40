// Dropout with a mask that is a function of (seed, stream) and not stored. The
// formula is in numeric/dropout_formula.h.

#include <ATen/Parallel.h>

#include <cmath>

#include "merganser/numeric/dropout_formula.h"
#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

at::Tensor dropout_reference(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream) {
  const double dropped = std::round(probability * 65536);
  at::Tensor factors = input.new_empty(
      {input.numel()}, at::TensorOptions(at::kCPU).dtype(at::kDouble));
  for (int64_t i = 0; i < input.numel(); ++i) {
    const int64_t lane = i % 16;
    const int64_t row = i / 16 % 8;
    const PhiloxBlock block = philox(seed, stream, i / 128 * 16 + lane);
    const uint32_t word = block.word[row / 2];
    const uint32_t bits = row % 2 == 0 ? word & 0xffff : word >> 16;
    factors[i] = bits < dropped ? 0.0 : 1 / (1 - dropped / 65536);
  }
  return factors.view(input.sizes())
      .to(input.device())
      .mul(input.to(at::kDouble))
      .to(input.scalar_type());
}

void check_dropout(const at::Tensor& input, double probability) {
  TORCH_CHECK(
      at::isFloatingType(input.scalar_type()),
      "dropout: input must be floating-point, got ",
      dtype_name(input));
  TORCH_CHECK(
      probability >= 0 && probability <= 1 - 0x1p-16,
      "dropout: probability must be from 0 to 1 - 2^-16, got ",
      probability);
}

at::Tensor dropout_meta(
    const at::Tensor& input,
    double probability,
    int64_t /*seed*/,
    int64_t /*stream*/) {
  check_dropout(input, probability);
  return input.new_empty_symint(input.sym_sizes());
}

namespace {

template <typename T, typename In>
void drop_tiles(
    const In* x,
    In* y,
    int64_t n,
    int64_t begin_tile,
    int64_t end_tile,
    const DropoutScalars<T>& scalars,
    uint64_t seed,
    uint64_t stream) {
  widest([=] {
    const DropoutScalars<T> s = scalars;
    for (int64_t tile = begin_tile; tile < end_tile; ++tile) {
      uint32_t words[4][kDropoutLanes];
      for (int lane = 0; lane < kDropoutLanes; ++lane) {
        const PhiloxBlock block = dropout_block(seed, stream, tile, lane);
        words[0][lane] = block.word[0];
        words[1][lane] = block.word[1];
        words[2][lane] = block.word[2];
        words[3][lane] = block.word[3];
      }
      for (int row = 0; row < kDropoutRows; ++row) {
        const int64_t first = tile * kDropoutTile + row * kDropoutLanes;
        const auto element = [&](int lane) {
          y[first + lane] = static_cast<In>(s.apply(
              static_cast<T>(x[first + lane]), words[row / 2][lane], row));
        };
        if (first + kDropoutLanes <= n) {
          for (int lane = 0; lane < kDropoutLanes; ++lane) {
            element(lane);
          }
        } else {
          for (int lane = 0; first + lane < n; ++lane) {
            element(lane);
          }
        }
      }
    }
  });
}

} // namespace

at::Tensor dropout_cpu(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream) {
  check_dropout(input, probability);
  const at::Tensor x = input.contiguous();
  at::Tensor y = x.new_empty(x.sizes());
  const int64_t n = x.numel();
  const auto run = [&]<typename T, typename In>() {
    const auto scalars = make_dropout_scalars<T>(probability);
    at::parallel_for(
        0,
        (n + kDropoutTile - 1) / kDropoutTile,
        kGrain / kDropoutTile,
        [&](int64_t begin, int64_t end) {
          drop_tiles(
              x.const_data_ptr<In>(),
              y.data_ptr<In>(),
              n,
              begin,
              end,
              scalars,
              seed,
              stream);
        });
  };
  dispatch_types(x, x, run);
  return y;
}

} // namespace merganser::ops
