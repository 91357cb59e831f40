// Errors of wrong arguments and of builds without CUDA: one sentence with the
// remedy.

#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

#include "merganser/ops/library.h"
#include "merganser/ops/reference.h"
#include "support.h"

namespace merganser::ops {
namespace {

template <typename Call>
std::string message(Call call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos)
      << "'" << text << "' lacks '" << part << "'";
}

TEST(Checks, NameTheArgumentAndItsValue) {
  at::Tensor f = at::zeros({4, 6});
  const at::Tensor g = at::zeros({4, 6});
  const auto square = [&](at::Tensor fisher, at::Tensor grad, double w = 1) {
    return message([&] { square_accumulate_(fisher, grad, w); });
  };
  expect_contains(
      square(f.to(at::kHalf), g),
      "square_accumulate_: fisher must be float32 or float64, got "
      "float16");
  expect_contains(
      square(f, g.to(at::kInt)),
      "grad must be float32, bfloat16 or float16, got int32");
  expect_contains(
      square(f, g.to(at::kDouble)), "float64 only with float64 accumulators");
  expect_contains(square(f, g.t()), "grad must have shape [4, 6], got [6, 4]");
  expect_contains(square(f.t(), g.t()), "fisher must be contiguous");
  expect_contains(square(f, g.to(at::kMeta)), "grad must be on cpu");
  expect_contains(square(f, g, 0.0 / 0.0), "weight must be finite");
}

TEST(Checks, OfTheAdamStep) {
  const at::Tensor x = at::zeros({4});
  const std::vector<at::Tensor> two = {at::zeros({4}), at::zeros({2})};
  const auto step = [&](at::TensorList params,
                        at::TensorList fishers,
                        double beta1,
                        at::IntArrayRef steps) {
    return message([&] {
      const auto grads = at::TensorList(two).slice(0, params.size());
      adam_fisher_step_(
          {.params = params,
           .grads = grads,
           .exp_avgs = grads,
           .exp_avg_sqs = grads,
           .fishers = fishers,
           .steps = steps,
           .lr = 1e-3,
           .beta1 = beta1});
    });
  };
  EXPECT_EQ(step(x, x, 0.9, 1), "no error");
  EXPECT_EQ(step(two, {}, 0.9, {1, 2}), "no error");
  expect_contains(
      step(x, x.to(at::kDouble), 0.9, 1),
      "fishers must have the dtype of params, float32");
  expect_contains(
      step(two, {x, x}, 0.9, {1, 1}), "fishers must have shape [2], got [4]");
  expect_contains(
      step(two, x, 0.9, {1, 1}),
      "expected one of fishers per parameter (2), got 1");
  expect_contains(
      step(two, {}, 0.9, 1), "expected one of steps per parameter (2), got 1");
  expect_contains(
      step({x, two[1].to(at::kMeta)}, {}, 0.9, {1, 1}),
      "params must be on cpu");
  expect_contains(step(x, x, 1.0, 1), "beta1 is out of range");
  expect_contains(step(two, two, 0.9, {1, 0}), "steps count from 1, got 0");
}

TEST(Checks, OfMerge) {
  const at::Tensor x = at::ones({4});
  const auto run = [&](std::optional<at::Tensor> base,
                       std::vector<at::Tensor> models,
                       std::vector<at::Tensor> fishers,
                       std::vector<double> scales,
                       int64_t method,
                       std::vector<double> rhos = {}) {
    return message([&] {
      merge(
          {.base = base,
           .base_fisher = base,
           .models = models,
           .fishers = fishers,
           .weights = std::vector<double>(models.size(), 1.0),
           .num_examples = scales,
           .rhos = rhos,
           .method = method});
    });
  };
  EXPECT_EQ(run(x, {x, x}, {x, x}, {1, 1}, 4), "no error");
  EXPECT_EQ(run(x, {x, x}, {x, x}, {1, 1}, 4, {0, 1}), "no error");
  expect_contains(
      run(x, {x, x}, {x, x}, {1, 1}, 4, {0}),
      "needs rhos, one per model (2), got 1");
  expect_contains(
      run(x, {x}, {x}, {1}, 3, {0}), "fisher_base takes no rhos, got 1");
  expect_contains(run(x, {x}, {x}, {1}, 7), "unknown method number 7");
  expect_contains(run(x, {}, {}, {}, 0), "at least one model");
  expect_contains(run({}, {x}, {}, {}, 1), "task_arithmetic needs base");
  expect_contains(
      run(x, {x, x}, {x}, {1, 1}, 4),
      "needs fishers, one per model (2), got 1");
  expect_contains(run(x, {x}, {x}, {1}, 0), "takes no fishers, got 1");
  expect_contains(
      run(x, {x, at::ones({5})}, {}, {}, 0),
      "models must have shape [4], got [5]");
}

TEST(Checks, OfPerExampleSquares) {
  at::Tensor f = at::zeros({4, 6});
  const auto linear = [&](at::IntArrayRef a, at::IntArrayRef d) {
    return message(
        [&] { linear_square_accumulate_(f, at::ones(a), at::ones(d), 1); });
  };
  EXPECT_EQ(linear({2, 3, 6}, {2, 3, 4}), "no error");
  expect_contains(linear({2, 3, 5}, {2, 3, 4}), "(B, L, 6) or (B, 6)");
  expect_contains(linear({2, 3, 6}, {2, 2, 4}), "grad_output");
  expect_contains(linear({2, 3, 6}, {6, 4}), "grad_output");
  const auto embedding = [&](const at::Tensor& ids, int64_t padding) {
    return message([&] {
      embedding_square_accumulate_(f, ids, at::ones({1, 2, 6}), 1, padding);
    });
  };
  const at::Tensor good = at::ones({1, 2}, at::kLong);
  EXPECT_EQ(embedding(good, 3), "no error");
  expect_contains(embedding(good * 4, -1), "indices must lie in [0, 4)");
  expect_contains(embedding(good * -1, -1), "got -1");
  expect_contains(embedding(good.to(at::kInt), -1), "indices must be int64");
  expect_contains(embedding(good, 4), "padding_idx must be below");
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
    expect_contains(sample(row), "is not a distribution");
  }
  expect_contains(sample({}), "at least one column");
}

TEST(Cuda, WithoutKernelsSaysHowToRebuild) {
  if (has_cuda()) {
    GTEST_SKIP() << "this build has CUDA kernels";
  }
  for (const char* name : kOpNames) {
    const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(
        (std::string("merganser::") + name).c_str(), "");
    torch::jit::Stack stack;
    expect_contains(
        message([&] {
          op.redispatchBoxed(
              c10::DispatchKeySet(c10::DispatchKey::CUDA), &stack);
        }),
        "-DMERGANSER_CUDA=ON");
  }
}

} // namespace
} // namespace merganser::ops
