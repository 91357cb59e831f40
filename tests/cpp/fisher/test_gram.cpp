// Gram matrices of a small random encoder against a loop over single tokens in
// float64. (tests/python/fisher/test_gram_cpp.py compares with the inputs of
// transformers' layers.)

#include "merganser/fisher/gram.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/text/batching.h"
#include "support/tiny_encoder.h"

namespace merganser {
namespace {

using test::tiny_encoder;
using Matrices = std::map<std::string, at::Tensor>;

Dataset texts() {
  return {
      "memory",
      {{5, 6, 7, 5}, {9}, {12, 2, 2, 2, 2, 11, 10}, {8, 7}, {3, 4, 3}},
      {0, 2, 1, 1, 0}};
}

// Needs no padding: each text is a batch of its own.
Matrices define_grams(
    Architecture architecture,
    const Dataset& data,
    const std::vector<int64_t>& positions) {
  Encoder model = tiny_encoder(architecture);
  model->to(at::kDouble);
  model->eval();
  std::map<const void*, std::string> names;
  for (const auto& item : model->named_parameters()) {
    names[item.value().unsafeGetTensorImpl()] = item.key();
  }
  Matrices grams;
  const auto examples = static_cast<double>(positions.size());
  model->watch_inputs([&](const at::Tensor& weight, const at::Tensor& input) {
    const at::Tensor tokens = input.reshape({-1, weight.size(1)});
    at::Tensor& gram = grams[names.at(weight.unsafeGetTensorImpl())];
    for (int64_t l = 0; l < tokens.size(0); ++l) {
      const at::Tensor outer = at::outer(tokens[l], tokens[l]) / examples;
      gram = gram.defined() ? gram + outer : outer;
    }
  });
  const at::NoGradGuard no_grad;
  for (const int64_t i : positions) {
    const at::Tensor ids = at::tensor(data.ids[i], at::kInt).to(at::kLong);
    model->forward(ids.unsqueeze(0), at::tensor({ids.size(0)}, at::kLong));
  }
  return grams;
}

double error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

using Case = std::tuple<Architecture, int64_t>; // and the batch size
class Gram : public testing::TestWithParam<Case> {};

TEST_P(Gram, IsTheMeanOverExamplesOfSumsOverTokens) {
  const auto [architecture, batch_size] = GetParam();
  const Dataset data = texts();
  const Matrices expected = define_grams(architecture, data, {0, 1, 2, 3, 4});
  Encoder model = tiny_encoder(architecture);
  const GramResult result =
      estimate_gram(model, data, test::kTinyPad, {.batch_size = batch_size});
  EXPECT_EQ(result.num_examples, 5);
  EXPECT_EQ(result.num_examples_used, 5);
  // Six linear layers in each of two blocks, and two in the head.
  ASSERT_EQ(result.matrices.size(), 14);
  ASSERT_EQ(expected.size(), 14);
  for (const auto& [name, matrix] : result.matrices) {
    EXPECT_EQ(matrix.scalar_type(), at::kFloat);
    EXPECT_LT(error(matrix, expected.at(name)), 1e-6) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures,
    Gram,
    testing::Combine(
        testing::Values(Architecture::kBert, Architecture::kRoberta),
        testing::Values(1, 2, 5)),
    [](const auto& info) {
      const bool bert = std::get<0>(info.param) == Architecture::kBert;
      return (bert ? "Bert" : "Roberta") +
          std::to_string(std::get<1>(info.param));
    });

TEST(EstimateGram, SumsOfManyTokensKeepTheirDigits) {
  Dataset data;
  for (int32_t i = 0; i < 2000; ++i) {
    data.ids.push_back({2 + i % 11, 2 + i % 7, 2 + i % 5});
    data.labels.push_back(0);
  }
  std::vector<int64_t> all(2000);
  std::iota(all.begin(), all.end(), 0);
  const Matrices expected = define_grams(Architecture::kBert, data, all);
  Encoder model = tiny_encoder(Architecture::kBert);
  for (const auto& [name, matrix] :
       estimate_gram(model, data, test::kTinyPad, {.batch_size = 4}).matrices) {
    EXPECT_LT(error(matrix, expected.at(name)), 2e-6) << name;
  }
}

TEST(EstimateGram, LimitDrawsASubsetBySeed) {
  const Dataset data = texts();
  const Matrices expected =
      define_grams(Architecture::kBert, data, draw_subset(5, 2, 8));
  Encoder model = tiny_encoder(Architecture::kBert);
  const GramResult result =
      estimate_gram(model, data, test::kTinyPad, {.limit = 2, .seed = 8});
  EXPECT_EQ(result.num_examples, 5);
  EXPECT_EQ(result.num_examples_used, 2);
  for (const auto& [name, matrix] : result.matrices) {
    EXPECT_LT(error(matrix, expected.at(name)), 1e-6) << name;
  }
}

TEST(EstimateGram, ProductsOfInputsStayFloat32UnderAutocast) {
  const Dataset data = texts();
  const Matrices expected =
      define_grams(Architecture::kBert, data, {0, 1, 2, 3, 4});
  Encoder model = tiny_encoder(Architecture::kBert);
  double largest = 0;
  for (const auto& [name, matrix] :
       estimate_gram(model, data, test::kTinyPad, {.bfloat16 = true})
           .matrices) {
    EXPECT_EQ(matrix.scalar_type(), at::kFloat);
    const double its_error = error(matrix, expected.at(name));
    EXPECT_LT(its_error, 0.03) << name;
    // The embeddings are not rounded.
    if (name == "bert.encoder.layer.0.attention.self.key.weight") {
      EXPECT_LT(its_error, 1e-6);
    }
    largest = std::max(largest, its_error);
  }
  EXPECT_GT(largest, 1e-4);
}

TEST(EstimateGram, LeavesTheModelAsItWas) {
  Encoder model = tiny_encoder(Architecture::kRoberta);
  model->train();
  const test::TinyBatch batch;
  model->eval();
  const at::Tensor before = batch.logits(model);
  model->train();
  const auto first = estimate_gram(model, texts(), test::kTinyPad, {}).matrices;
  EXPECT_TRUE(model->is_training());
  set_interrupt_hook([] { throw Interrupted("stop"); });
  EXPECT_THROW(estimate_gram(model, texts(), test::kTinyPad, {}), Interrupted);
  set_interrupt_hook(nullptr);
  EXPECT_TRUE(model->is_training());
  model->eval();
  EXPECT_TRUE(at::equal(batch.logits(model), before));
  const auto second =
      estimate_gram(model, texts(), test::kTinyPad, {}).matrices;
  EXPECT_TRUE(at::equal(first.back().second, second.back().second));
}

TEST(EstimateGram, OptionsOutOfRange) {
  Encoder model = tiny_encoder(Architecture::kBert);
  EXPECT_THROW(
      estimate_gram(model, texts(), test::kTinyPad, {.limit = 0}), InputError);
  EXPECT_THROW(
      estimate_gram(model, texts(), test::kTinyPad, {.batch_size = 0}),
      InputError);
}

} // namespace
} // namespace merganser
