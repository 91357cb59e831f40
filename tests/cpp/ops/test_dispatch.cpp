// Bad arguments, and builds without CUDA: each is a sentence that says what to
// do.

#include <ATen/core/dispatch/Dispatcher.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ops/library.h"
#include "ops/reference.h"
#include "support.h"

namespace merganser::ops {
namespace {

using testing::HasSubstr;

template <typename Call>
std::string message(Call call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(Checks, NameTheArgumentAndWhatCame) {
  at::Tensor f = at::zeros({4, 6});
  const at::Tensor g = at::zeros({4, 6});
  const auto square = [&](at::Tensor fisher, at::Tensor grad, double w = 1) {
    return message([&] { square_accumulate_(fisher, grad, w); });
  };
  EXPECT_THAT(
      square(f.to(at::kHalf), g),
      HasSubstr("square_accumulate_: fisher must be float32 or float64, got "
                "float16"));
  EXPECT_THAT(
      square(f, g.to(at::kInt)),
      HasSubstr("grad must be float32, bfloat16 or float16, got int32"));
  EXPECT_THAT(
      square(f, g.to(at::kDouble)), HasSubstr("float64 only where all"));
  EXPECT_THAT(
      square(f, g.t()), HasSubstr("grad must have shape [4, 6], got [6, 4]"));
  EXPECT_THAT(square(f.t(), g.t()), HasSubstr("fisher must be contiguous"));
  EXPECT_THAT(square(f, g.to(at::kMeta)), HasSubstr("grad must be on cpu"));
  EXPECT_THAT(square(f, g, 0.0 / 0.0), HasSubstr("weight must be finite"));
}

TEST(Checks, OfTheAdamStep) {
  at::Tensor p = at::zeros({4}), m = at::zeros({4}), v = at::zeros({4});
  const auto step = [&](const at::Tensor& fisher, double beta1, int64_t t) {
    return message([&] {
      adam_fisher_step_(
          p, at::zeros({4}), m, v, fisher, 1e-3, beta1, 0.9, 1e-8, 0, t, 1, 1);
    });
  };
  EXPECT_EQ(step(at::zeros({4}), 0.9, 1), "no error");
  EXPECT_THAT(
      step(at::zeros({4}, at::kDouble), 0.9, 1),
      HasSubstr("fisher must have the dtype of param, float32"));
  EXPECT_THAT(step(at::zeros({4}), 1.0, 1), HasSubstr("beta1 is out of range"));
  EXPECT_THAT(step(at::zeros({4}), 0.9, 0), HasSubstr("step counts from 1"));
}

TEST(Checks, OfMerge) {
  const at::Tensor x = at::ones({4});
  const auto run = [&](std::optional<at::Tensor> base,
                       std::vector<at::Tensor> models,
                       std::vector<at::Tensor> fishers,
                       std::vector<double> scales,
                       int64_t method) {
    return message([&] {
      merge(
          base,
          base,
          models,
          fishers,
          std::vector<double>(models.size(), 1.0),
          scales,
          1,
          method,
          0,
          0,
          0);
    });
  };
  EXPECT_EQ(run(x, {x, x}, {x, x}, {1, 1}, 4), "no error");
  EXPECT_THAT(run(x, {x}, {x}, {1}, 7), HasSubstr("no method with number 7"));
  EXPECT_THAT(run(x, {}, {}, {}, 0), HasSubstr("at least one model"));
  EXPECT_THAT(run({}, {x}, {}, {}, 1), HasSubstr("task_arithmetic needs base"));
  EXPECT_THAT(
      run(x, {x, x}, {x}, {1, 1}, 4), HasSubstr("needs one of fishers per"));
  EXPECT_THAT(run(x, {x}, {x}, {1}, 0), HasSubstr("takes none of fishers"));
  EXPECT_THAT(
      run(x, {x, at::ones({5})}, {}, {}, 0),
      HasSubstr("models must have shape [4], got [5]"));
}

TEST(Checks, OfPerExampleSquares) {
  at::Tensor f = at::zeros({4, 6});
  const auto linear = [&](at::IntArrayRef a, at::IntArrayRef d) {
    return message(
        [&] { linear_square_accumulate_(f, at::ones(a), at::ones(d), 1); });
  };
  EXPECT_EQ(linear({2, 3, 6}, {2, 3, 4}), "no error");
  EXPECT_THAT(linear({2, 3, 5}, {2, 3, 4}), HasSubstr("(B, L, 6) or (B, 6)"));
  EXPECT_THAT(linear({2, 3, 6}, {2, 2, 4}), HasSubstr("grad_output"));
  EXPECT_THAT(linear({2, 3, 6}, {6, 4}), HasSubstr("grad_output"));
  const auto embedding = [&](const at::Tensor& ids, int64_t padding) {
    return message([&] {
      embedding_square_accumulate_(f, ids, at::ones({1, 2, 6}), 1, padding);
    });
  };
  const at::Tensor good = at::ones({1, 2}, at::kLong);
  EXPECT_EQ(embedding(good, 3), "no error");
  EXPECT_THAT(embedding(good * 4, -1), HasSubstr("indices must lie in [0, 4)"));
  EXPECT_THAT(embedding(good * -1, -1), HasSubstr("got -1"));
  EXPECT_THAT(
      embedding(good.to(at::kInt), -1), HasSubstr("indices must be int64"));
  EXPECT_THAT(embedding(good, 4), HasSubstr("padding_idx must be below"));
}

TEST(Checks, OfSampledLabels) {
  const auto sample = [&](std::vector<double> row) {
    return message([&] {
      sample_labels(
          at::tensor(row, at::kDouble).unsqueeze(0),
          at::zeros({1}, at::kLong),
          0,
          0);
    });
  };
  EXPECT_EQ(sample({0.5, 0.5}), "no error");
  for (const std::vector<double>& row :
       {std::vector<double>{0.5, 0.6},
        {0.5, 0.4},
        {1.5, -0.5},
        {0.0 / 0.0, 1.0},
        {1.0 / 0.0, 0.0}}) {
    EXPECT_THAT(sample(row), HasSubstr("is no distribution"));
  }
  EXPECT_THAT(sample({}), HasSubstr("at least one column"));
}

TEST(Cuda, WithoutKernelsSaysHowToRebuild) {
  if (has_cuda()) {
    GTEST_SKIP() << "this build has CUDA kernels";
  }
  for (const char* name : kOpNames) {
    const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(
        (std::string("merganser::") + name).c_str(), "");
    torch::jit::Stack stack;
    EXPECT_THAT(
        message([&] {
          op.redispatchBoxed(
              c10::DispatchKeySet(c10::DispatchKey::CUDA), &stack);
        }),
        HasSubstr("-DMERGANSER_CUDA=ON"));
  }
}

} // namespace
} // namespace merganser::ops
