// The estimators on a small random encoder, against ordinary backward passes on
// one example at a time. (tests/python/fisher/test_fisher_cpp.py compares with
// transformers in float64.)

#include "merganser/fisher/fisher.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"

namespace merganser {
namespace {

Encoder small_encoder(Architecture architecture) {
  EncoderConfig config;
  config.architecture = architecture;
  config.vocab_size = 31;
  config.hidden_size = 12;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 3;
  config.intermediate_size = 20;
  config.max_position_embeddings = 16;
  config.type_vocab_size = 1;
  config.pad_token_id = 1;
  config.num_labels = 3;
  config.initializer_range = 0.3;
  const auto model = std::make_shared<EncoderImpl>(config);
  model->initialize(7);
  return model;
}

Dataset small_data() {
  return {
      "memory",
      {{5, 6, 7, 5}, {9}, {30, 2, 2, 2, 2, 11, 12}, {8, 7}, {3, 4, 3}},
      {0, 2, 1, 1, 0}};
}

constexpr int32_t kPad = 1;

// 1/N sum_i (gradient of log p(label_i | x_i))^2
std::vector<at::Tensor> define_empirical(Encoder& model, const Dataset& data) {
  model->eval();
  const auto parameters = model->parameters();
  std::vector<at::Tensor> sums;
  for (const at::Tensor& p : parameters) {
    sums.push_back(at::zeros_like(p));
  }
  for (size_t i = 0; i < data.labels.size(); ++i) {
    const at::Tensor ids = at::tensor(data.ids[i], at::kInt).to(at::kLong);
    const at::Tensor logits =
        model->forward(ids.unsqueeze(0), at::tensor({ids.size(0)}, at::kLong));
    const auto gradients = torch::autograd::grad(
        {at::log_softmax(logits, 1)[0][data.labels[i]]}, parameters);
    for (size_t p = 0; p < sums.size(); ++p) {
      sums[p] += gradients[p].square() / static_cast<double>(data.size());
    }
  }
  return sums;
}

class Fisher : public testing::TestWithParam<Architecture> {};

TEST_P(Fisher, EmpiricalIsTheMeanOfSquaresPerExample) {
  Encoder model = small_encoder(GetParam());
  const Dataset data = small_data();
  const auto expected = define_empirical(model, data);
  const FisherResult result = estimate_fisher(
      model, data, kPad, {.estimator = Estimator::kEmpirical, .batch_size = 2});
  ASSERT_EQ(result.diagonal.size(), expected.size());
  double whole = 0;
  for (const at::Tensor& f : expected) {
    whole += f.norm().item<double>();
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto& [name, f] = result.diagonal[i];
    const double error = (f - expected[i]).norm().item<double>();
    // The part of the whole is for the keys' bias, whose gradient is zero.
    EXPECT_LE(error, 1e-4 * expected[i].norm().item<double>() + 1e-12 * whole)
        << name;
  }
}

TEST_P(Fisher, EveryParameterGetsOne) {
  Encoder model = small_encoder(GetParam());
  for (const auto& [name, f] :
       estimate_fisher(model, small_data(), kPad, {}).diagonal) {
    EXPECT_GT(f.sum().item<double>(), 0) << name;
    EXPECT_GE(f.min().item<double>(), 0) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures,
    Fisher,
    testing::Values(Architecture::kBert, Architecture::kRoberta),
    [](const auto& info) {
      return info.param == Architecture::kBert ? "Bert" : "Roberta";
    });

TEST(EstimateFisher, WorksInsideANoGradRegion) {
  Encoder model = small_encoder(Architecture::kBert);
  const at::NoGradGuard no_grad;
  const auto result = estimate_fisher(model, small_data(), kPad, {});
  EXPECT_GT(result.diagonal.back().second.sum().item<double>(), 0);
}

TEST(EstimateFisher, AnInterruptEndsItAndLeavesTheModelAsItWas) {
  Encoder model = small_encoder(Architecture::kBert);
  model->train();
  set_interrupt_hook([] { throw Interrupted("stop"); });
  EXPECT_THROW(estimate_fisher(model, small_data(), kPad, {}), Interrupted);
  set_interrupt_hook(nullptr);
  EXPECT_TRUE(model->is_training());
}

TEST(Estimator, NamesAndBack) {
  for (const char* name : {"exact", "mc", "empirical", "mc_batch"}) {
    EXPECT_EQ(estimator_name(parse_estimator(name)), name);
  }
  EXPECT_THROW(parse_estimator("adam"), InputError);
}

} // namespace
} // namespace merganser
