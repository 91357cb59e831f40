// Predictive averages against a loop over samples and examples in float64.

#include "merganser/eval/predictive_average.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/tiny_encoder.h"

namespace merganser {
namespace {

constexpr int64_t kSamples = 3;
constexpr uint64_t kSeed = 7;

class PredictiveAverage : public testing::Test {
 protected:
  PredictiveAverage() {
    model_->eval();
    at::manual_seed(3);
    for (const auto& item : model_->named_parameters()) {
      const at::Tensor& value = item.value();
      mean_[item.key()] = value.detach().clone();
      precision_[item.key()] = 20 + 30 * at::rand(value.sizes());
    }
    data_.ids = {{3, 5, 2, 12, 7}, {6, 2}, {4, 4, 9, 2}};
    data_.labels = {0, 2, 1};
  }

  at::Tensor average(int64_t samples, int64_t batch_size) const {
    return average(Posterior(mean_, precision_), samples, batch_size);
  }
  at::Tensor average(
      const Posterior& posterior,
      int64_t samples = kSamples,
      int64_t batch_size = 2) const {
    return predictive_average(
        model_,
        posterior,
        samples,
        kSeed,
        data_,
        test::kTinyPad,
        batch_size,
        false);
  }

  // Probabilities (N, K).
  at::Tensor define() const {
    const at::NoGradGuard no_grad;
    const Posterior posterior(mean_, precision_);
    const auto model = std::make_shared<EncoderImpl>(model_->config());
    model->eval();
    at::Generator generator = at::detail::createCPUGenerator(kSeed);
    at::Tensor sum = at::zeros({std::ssize(data_.ids), 3}, at::kDouble);
    for (int64_t s = 0; s < kSamples; ++s) {
      model->to(at::kFloat);
      const Posterior::Tensors drawn = posterior.sample(generator);
      for (auto& item : model->named_parameters()) {
        item.value().copy_(drawn.at(item.key()));
      }
      model->to(at::kDouble);
      for (int64_t i = 0; i < sum.size(0); ++i) {
        const at::Tensor ids = at::tensor(data_.ids[i], at::kInt).to(at::kLong);
        const at::Tensor length = at::tensor({ids.size(0)}, at::kLong);
        sum[i] += at::softmax(model->forward(ids.unsqueeze(0), length)[0], 0);
      }
    }
    return sum / kSamples;
  }

  Encoder model_ = test::tiny_encoder(Architecture::kBert);
  Posterior::Tensors mean_;
  Posterior::Tensors precision_;
  Dataset data_;
};

TEST_F(PredictiveAverage, IsTheMeanOverSamples) {
  const at::Tensor expected = define();
  for (const int64_t batch_size : {1, 2, 8}) {
    const at::Tensor found = average(kSamples, batch_size).exp();
    EXPECT_TRUE(at::allclose(found, expected, 1e-5, 1e-6)) << found << "\n"
                                                           << expected;
  }
  // The samples differ from one another and from the mean.
  EXPECT_FALSE(at::allclose(average(1, 2).exp(), expected, 1e-2, 1e-2));
}

TEST_F(PredictiveAverage, LeavesTheModelAsItIs) {
  average(kSamples, 2);
  for (const auto& item : model_->named_parameters()) {
    EXPECT_TRUE(item.value().equal(mean_.at(item.key())));
  }
}

TEST_F(PredictiveAverage, RefusesOtherParameters) {
  const auto expect_refused = [&](const std::string& part) {
    test::expect_error<InputError>(
        [&] { average(Posterior(mean_, precision_)); }, {part});
  };
  const std::string name = "classifier.bias";
  const at::Tensor bias = mean_.at(name);
  mean_[name] = at::zeros({4});
  precision_[name] = at::ones({4});
  expect_refused(
      "classifier.bias of the posterior has shape [4]; expected [3]");
  mean_.erase(name);
  precision_.erase(name);
  expect_refused("lacks tensor classifier.bias");
  mean_[name] = bias;
  mean_["more"] = at::zeros({2});
  EXPECT_NO_THROW(average(Posterior(mean_, precision_), 1)); // known
  precision_["more"] = at::ones({2});
  expect_refused("tensor more, which the model lacks");
}

TEST_F(PredictiveAverage, RefusesNoSamplesAndNoDistribution) {
  const auto expect_refused = [&](int64_t samples, const std::string& part) {
    test::expect_error<InputError>([&] { average(samples, 2); }, {part});
  };
  expect_refused(0, "samples must be at least 1, got 0");
  precision_["classifier.bias"] = at::zeros({3});
  expect_refused(1, "3 elements have precision 0");
}

} // namespace
} // namespace merganser
