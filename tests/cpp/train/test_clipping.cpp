#include "merganser/train/clipping.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace merganser {
namespace {

TEST(Clipping, NormEqualsFloat64) {
  at::manual_seed(2);
  for (int64_t n : {0, 1, 31, 32, 33, 32768, 32769, 100003}) {
    const at::Tensor flat = at::randn({n});
    const double expected = flat.to(at::kDouble).norm().item<double>();
    EXPECT_NEAR(flat_norm(flat), expected, 1e-12 * expected) << n;
  }
}

TEST(Clipping, NormIsTheSameForAnyNumberOfThreads) {
  at::manual_seed(3);
  const at::Tensor flat = at::randn({300001});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double one = flat_norm(flat);
  at::set_num_threads(2);
  EXPECT_EQ(flat_norm(flat), one);
  at::set_num_threads(threads);
}

TEST(Clipping, NormShowsWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  for (int64_t at : {0, 40000, 99999}) {
    at::Tensor flat = at::zeros({100000});
    flat[at] = inf;
    EXPECT_EQ(flat_norm(flat), inf);
    flat[at] = std::nanf("");
    EXPECT_TRUE(std::isnan(flat_norm(flat)));
  }
}

TEST(Clipping, ScaleOnlyShrinks) {
  EXPECT_DOUBLE_EQ(clip_scale(0.5, 1), 1);
  EXPECT_DOUBLE_EQ(clip_scale(4, 1), 1 / (4 + 1e-6));
  EXPECT_DOUBLE_EQ(clip_scale(4, 0), 1);
}

} // namespace
} // namespace merganser
