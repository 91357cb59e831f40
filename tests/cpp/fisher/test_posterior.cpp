// Posteriors against closed forms in float64.

#include "merganser/fisher/posterior.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>

#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"
#include "merganser/numeric/merge_formula.h"
#include "merganser/ops/ops.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

using Tensors = Posterior::Tensors;

constexpr int64_t kSize = 7;

template <typename Work>
void expect_input_error(Work&& work, const std::string& part) {
  test::expect_error<InputError>(std::forward<Work>(work), {part});
}

Tensors draw_model(uint64_t seed, at::ScalarType type = at::kDouble) {
  at::manual_seed(seed);
  return {
      {"w", at::randn({kSize, 2}, type)},
      {"b", at::randn({kSize}, type)},
      {"scale", at::ones({2}, type)},
      {"count", at::tensor(std::vector<int64_t>{3}, at::kLong)}};
}

// N = 2 + seed; with zeros, elements that no data set has seen and some that
// one has.
FisherResult draw_fisher(
    uint64_t seed,
    bool zeros = false,
    at::ScalarType type = at::kDouble) {
  at::manual_seed(100 + seed);
  FisherResult fisher;
  fisher.diagonal = {
      {"w", at::rand({kSize, 2}, type)}, {"b", at::rand({kSize}, type)}};
  if (zeros) {
    fisher.diagonal[0].second.slice(0, static_cast<int64_t>(seed)).zero_();
  }
  fisher.num_examples = static_cast<int64_t>(2 + seed);
  return fisher;
}

void expect_close(const at::Tensor& found, const at::Tensor& expected) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  EXPECT_TRUE(at::allclose(found, expected, 1e-13, 1e-13)) << found << "\n"
                                                           << expected;
}

struct Task {
  Tensors model;
  FisherResult fisher;
};

class Product : public testing::TestWithParam<std::tuple<bool, double>> {
 protected:
  bool zeros() const {
    return std::get<0>(GetParam());
  }
  double delta() const {
    return std::get<1>(GetParam());
  }
  Posterior prior() const {
    return Posterior::laplace(base_.model, base_.fisher, nullptr, delta());
  }
  Posterior product() const {
    std::vector<Posterior> posteriors;
    for (const Task& task : tasks_) {
      posteriors.push_back(
          Posterior::laplace(task.model, task.fisher, &base_.fisher, delta()));
    }
    return Posterior::product(posteriors, prior(), weights_);
  }

  Task base_{draw_model(0), draw_fisher(1, zeros())};
  std::vector<Task> tasks_ = {
      {draw_model(1), draw_fisher(2, zeros())},
      {draw_model(2), draw_fisher(3, zeros())},
      {draw_model(3), draw_fisher(5, zeros())}};
  std::vector<double> weights_ = {0.3, 1, 2.5};
};

TEST_P(Product, IsGradientMatching) {
  const Posterior found = product();
  for (size_t i = 0; i < base_.fisher.diagonal.size(); ++i) {
    const auto& [name, base_fisher] = base_.fisher.diagonal[i];
    std::vector<at::Tensor> models;
    std::vector<at::Tensor> fishers;
    std::vector<double> counts;
    at::Tensor total =
        base_fisher * base_.fisher.num_examples + delta(); // H_0 + sum w H
    for (size_t t = 0; t < tasks_.size(); ++t) {
      models.push_back(tasks_[t].model.at(name));
      fishers.push_back(tasks_[t].fisher.diagonal[i].second);
      counts.push_back(static_cast<double>(tasks_[t].fisher.num_examples));
      total = total + weights_[t] * counts[t] * fishers[t];
    }
    expect_close(
        found.mean().at(name),
        ops::merge(
            {.base = base_.model.at(name),
             .base_fisher = base_fisher,
             .models = models,
             .fishers = fishers,
             .weights = weights_,
             .num_examples = counts,
             .base_num_examples =
                 static_cast<double>(base_.fisher.num_examples),
             .method = static_cast<int64_t>(MergeFormula::kGradientMatching),
             .delta = delta()}));
    expect_close(found.precision().at(name), total);
  }
  EXPECT_TRUE(found.mean().at("count").equal(base_.model.at("count")));
}

INSTANTIATE_TEST_SUITE_P(
    Fishers,
    Product,
    testing::Combine(testing::Bool(), testing::Values(0.0, 1e-12, 0.5)));

TEST(Posterior, ProductDividesByTheBase) {
  // log q = log p_0 + sum_t w_t (log p_t - log p_0), up to a constant.
  const FisherResult base_fisher = draw_fisher(1);
  const Posterior prior =
      Posterior::laplace(draw_model(0), base_fisher, nullptr, 0.1);
  const std::vector<double> weights = {0.3, 1.2};
  std::vector<Posterior> posteriors;
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    posteriors.push_back(Posterior::laplace(
        draw_model(seed), draw_fisher(1 + seed), &base_fisher, 0.1));
  }
  const Posterior product = Posterior::product(posteriors, prior, weights);
  std::vector<double> constants;
  for (uint64_t seed = 10; seed <= 12; ++seed) {
    const Tensors state = draw_model(seed);
    double expected = prior.log_density(state);
    for (size_t t = 0; t < weights.size(); ++t) {
      expected += weights[t] *
          (posteriors[t].log_density(state) - prior.log_density(state));
    }
    constants.push_back(product.log_density(state) - expected);
  }
  EXPECT_NEAR(constants[0], constants[1], 1e-9);
  EXPECT_NEAR(constants[0], constants[2], 1e-9);
}

TEST(Posterior, LogDensityIsTheNormalDistributions) {
  const FisherResult fisher = draw_fisher(4);
  const Posterior posterior =
      Posterior::laplace(draw_model(4), fisher, nullptr, 0.2);
  const Tensors state = draw_model(5);
  double expected = 0;
  for (const auto& [name, f] : fisher.diagonal) {
    const at::Tensor h = (f * fisher.num_examples + 0.2).flatten();
    const at::Tensor z = (state.at(name) - posterior.mean().at(name)).flatten();
    for (int64_t i = 0; i < h.numel(); ++i) {
      const double sigma = 1 / std::sqrt(h[i].item<double>());
      const double x = z[i].item<double>() / sigma;
      expected -= x * x / 2 + std::log(sigma * std::sqrt(2 * std::numbers::pi));
    }
  }
  EXPECT_NEAR(posterior.log_density(state), expected, 1e-11);
}

TEST(Posterior, SamplesHaveTheMeanAndThePrecision) {
  const Posterior posterior =
      Posterior::laplace(draw_model(6), draw_fisher(6), nullptr, 0.2);
  constexpr int64_t kSamples = 4000;
  std::vector<at::Tensor> drawn;
  for (int64_t seed = 0; seed < kSamples; ++seed) {
    const Tensors state = posterior.sample(static_cast<uint64_t>(seed));
    EXPECT_TRUE(state.at("scale").equal(posterior.mean().at("scale")));
    drawn.push_back(state.at("w"));
  }
  const at::Tensor p = posterior.precision().at("w");
  const at::Tensor x = at::stack(drawn);
  const at::Tensor scores =
      (x.mean(0) - posterior.mean().at("w")) * (p * kSamples).sqrt();
  EXPECT_LT(scores.abs().max().item<double>(), 4.5);
  EXPECT_LT(
      (x.var(0) * p - 1).abs().max().item<double>(),
      4.5 * std::sqrt(2.0 / kSamples));
  EXPECT_TRUE(posterior.sample(3).at("w").equal(drawn[3]));
}

// The numbers of tests/python/posterior/test_posterior.py.
TEST(Posterior, SamplesAreThoseOfPython) {
  const Posterior posterior(
      {{"b", at::tensor({1.0, 2.0}, at::kFloat)}, {"w", at::zeros({20})}},
      {{"b", at::tensor({4.0, 16.0}, at::kFloat)}, {"w", at::ones({20})}});
  at::Generator generator = at::detail::createCPUGenerator(7);
  for (const auto& [b, w] :
       {std::pair(
            at::tensor({0.9266025, 2.1965353}, at::kFloat),
            at::tensor({-0.1669960, 1.4058529}, at::kFloat)),
        std::pair(
            at::tensor({1.8895775, 1.7705173}, at::kFloat),
            at::tensor({2.5116029, 0.5920297}, at::kFloat))}) {
    const Tensors drawn = posterior.sample(generator);
    EXPECT_TRUE(at::allclose(drawn.at("b"), b, 0, 1e-6));
    EXPECT_TRUE(at::allclose(drawn.at("w").slice(0, 0, 20, 19), w, 0, 1e-6));
  }
}

TEST(Posterior, PrecisionOfZeroIsNoDistribution) {
  const Posterior flat =
      Posterior::laplace(draw_model(1), draw_fisher(4, true));
  EXPECT_EQ(flat.zeros(), 2 * (kSize - 4));
  expect_input_error([&] { flat.sample(1); }, "6 elements have precision 0");
  expect_input_error(
      [&] { flat.log_density(draw_model(1)); }, "call with_prior");
  const Posterior proper = flat.with_prior(0.5);
  EXPECT_EQ(proper.zeros(), 0);
  expect_close(proper.precision().at("w"), flat.precision().at("w") + 0.5);
  EXPECT_TRUE(std::isfinite(proper.log_density(draw_model(1))));
}

TEST(Posterior, FilesAreAModelAndItsFisher) {
  const test::TemporaryFolder folder;
  const Posterior saved = Posterior::laplace(
      draw_model(2, at::kBFloat16), draw_fisher(2, true, at::kFloat));
  saved.save(folder / "out");
  const Posterior loaded = Posterior::load(folder / "out");
  ASSERT_EQ(loaded.mean().size(), 4U);
  for (const auto& [name, x] : saved.mean()) {
    EXPECT_EQ(loaded.mean().at(name).scalar_type(), x.scalar_type());
    EXPECT_TRUE(loaded.mean().at(name).equal(x));
  }
  ASSERT_EQ(loaded.precision().size(), 2U);
  for (const auto& [name, p] : saved.precision()) {
    EXPECT_TRUE(loaded.precision().at(name).equal(p));
  }

  // The files of python/merganser/posterior.py.
  const auto file = folder / "out" / "posterior.safetensors";
  const FisherResult fisher = FisherResult::load(file);
  EXPECT_EQ(fisher.estimator, "posterior");
  EXPECT_EQ(fisher.num_examples, 1);
  EXPECT_EQ(fisher.num_examples_used, 1);
  EXPECT_EQ(fisher.labels, "");
  EXPECT_EQ(fisher.model_hash, Checkpoint(folder / "out").content_hash());
  const Posterior again =
      Posterior::laplace(folder / "out" / "model.safetensors", file);
  EXPECT_TRUE(again.precision().at("w").equal(saved.precision().at("w")));

  Posterior(draw_model(3), saved.precision()).save(folder / "other");
  std::filesystem::copy_file(
      file,
      folder / "other" / "posterior.safetensors",
      std::filesystem::copy_options::overwrite_existing);
  expect_input_error(
      [&] { Posterior::load(folder / "other"); },
      "belongs to a different model");
}

std::string file_bytes(std::string header, const std::string& data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t size = header.size();
  std::string bytes(sizeof(size), 0);
  std::memcpy(bytes.data(), &size, sizeof(size));
  return bytes + header + data;
}

// The bytes of tests/python/posterior/test_posterior.py, which Python also
// reads and writes.
std::map<std::string, std::string> python_files() {
  using namespace std::string_literals;
  return {
      {"model.safetensors",
       file_bytes(
           R"({"__metadata__":{"format":"pt"},)"
           R"("count":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
           R"("w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},)"
           R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}})",
           "\3\0\0\0\0\0\0\0"s
           "\0\0\xc0\x3f\0\0\0\xc0"s
           "\x80\x3e"s)},
      {"posterior.safetensors",
       file_bytes(
           R"({"__metadata__":{"base_model_hash":)"
           R"("6a09ab56524e4b4fc795441a46aa5882b73ec499ce18ebf0e67e7024f4ef0fc8",)"
           R"("estimator":"posterior","format_version":"1","labels":"",)"
           R"("num_examples":"1","num_examples_used":"1","samples":"1",)"
           R"("seed":"0"},)"
           R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
           R"("w":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}})",
           "\0\0\0\x40"s
           "\0\0\x80\x40\0\0\0\x3f"s)}};
}

TEST(Posterior, FilesHaveTheBytesOfPython) {
  const Tensors mean = {
      {"b", at::full({1}, 0.25, at::kBFloat16)},
      {"count", at::tensor(std::vector<int64_t>{3}, at::kLong)},
      {"w", at::tensor({1.5, -2.0}, at::kFloat).view({1, 2})}};
  const Tensors precision = {
      {"b", at::full({1}, 2.0, at::kFloat)},
      {"w", at::tensor({4.0, 0.5}, at::kFloat).view({1, 2})}};
  const test::TemporaryFolder folder;
  Posterior(mean, precision).save(folder / "saved");
  std::filesystem::create_directories(folder / "given");
  for (const auto& [name, expected] : python_files()) {
    EXPECT_EQ(read_file(folder / "saved" / name), expected);
    std::ofstream(folder / "given" / name, std::ios::binary) << expected;
  }
  const Posterior loaded = Posterior::load(folder / "given");
  const auto expect_equal = [](const Tensors& found, const Tensors& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, x] : expected) {
      EXPECT_EQ(found.at(name).scalar_type(), x.scalar_type());
      EXPECT_TRUE(found.at(name).equal(x)) << name;
    }
  };
  expect_equal(loaded.mean(), mean);
  expect_equal(loaded.precision(), precision);
}

TEST(Posterior, SaveRefusesWhatFloat32CannotHold) {
  const test::TemporaryFolder folder;
  const Tensors mean = draw_model(1);
  for (const double value : {1e50, 1e-50}) {
    const Posterior posterior(
        mean, {{"b", at::full({kSize}, value, at::kDouble)}});
    test::expect_error<InputError>(
        [&] { posterior.save(folder / "out"); },
        {"precision of tensor b", "e", "is out of float32's range"});
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  }
}

TEST(FisherResult, SaveRefusesWhatOverflowsFloat32) {
  const test::TemporaryFolder folder;
  FisherResult fisher = draw_fisher(1);
  fisher.diagonal[0].second.mul_(1e50);
  test::expect_error<Error>(
      [&] { fisher.save(folder / "f.safetensors"); },
      {"the Fisher of w is not finite"});
  EXPECT_FALSE(std::filesystem::exists(folder / "f.safetensors"));
}

TEST(Posterior, BadInputs) {
  const Tensors mean = draw_model(1);
  const at::Tensor ones = at::ones({kSize});
  expect_input_error(
      [&] {
        Posterior(mean, {{"x", ones}});
      },
      "the mean lacks tensor x");
  expect_input_error(
      [&] {
        Posterior(mean, {{"w", ones}});
      },
      "tensor w differs in shape");
  expect_input_error(
      [&] {
        Posterior(mean, {{"b", -ones}});
      },
      "b must be finite and non-negative, got -1");
  expect_input_error(
      [&] {
        Posterior(mean, {{"count", at::ones({1})}});
      },
      "not floating-point");
  expect_input_error(
      [&] {
        Posterior({{"b", ones / 0}}, {{"b", ones}});
      },
      "not finite");

  const Posterior base(mean, {{"b", ones}});
  const auto multiply = [&](const Tensors& other, const Tensors& precision) {
    Posterior::product({Posterior(other, precision)}, base, {1});
  };
  expect_input_error([&] { multiply(mean, {{"b", 0.5 * ones}}); }, "below");
  expect_input_error([&] { multiply(mean, {{"w", mean.at("w").abs()}}); }, "w");
  Tensors other = mean;
  other["w"] = mean.at("w") + 1;
  expect_input_error([&] { multiply(other, {{"b", ones}}); }, "no precision");
  expect_input_error(
      [&] {
        Posterior::product({base}, base, {1, 1});
      },
      "one weight per");
  expect_input_error(
      [&] { Posterior::product({base}, base, {-1}); }, "non-negative");
  expect_input_error([&] { base.with_prior(-1); }, "delta");
  expect_input_error([&] { base.with_prior(0); }, "delta");
  other = mean;
  other["scale"] = mean.at("scale") + 1;
  expect_input_error([&] { base.log_density(other); }, "scale differs");
}

} // namespace
} // namespace merganser
