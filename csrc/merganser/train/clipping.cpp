#include "merganser/train/clipping.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "merganser/numeric/simd.h"

namespace merganser {
namespace {

double sum_of_squares(const float* x, int64_t n) {
  // Independent sums, so that additions do not wait for each other.
  constexpr int64_t kLanes = 32;
  double sums[kLanes] = {};
  widest([&] {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; lane++) {
        const double value = x[i + lane];
        sums[lane] += value * value;
      }
    }
    for (; i < n; i++) {
      sums[0] += static_cast<double>(x[i]) * x[i];
    }
  });
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

} // namespace

double flat_norm(const at::Tensor& flat) {
  constexpr int64_t kBlock = 1 << 15;
  const float* values = flat.const_data_ptr<float>();
  const int64_t size = flat.numel();
  std::vector<double> sums((size + kBlock - 1) / kBlock);
  at::parallel_for(
      0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; block++) {
          const int64_t start = block * kBlock;
          sums[block] =
              sum_of_squares(values + start, std::min(kBlock, size - start));
        }
      });
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

double clip_scale(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1;
}

} // namespace merganser
