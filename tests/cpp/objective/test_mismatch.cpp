// The mismatch of models on disk against its definition in float64.

#include "merganser/objective/mismatch.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"
#include "support/small_task_models.h"

namespace merganser {
namespace {

using test::NamedTensors;
using test::TaskModels;

NamedTensors scaled_fisher(const FisherResult& fisher, double factor) {
  NamedTensors result;
  for (const auto& [name, values] : fisher.diagonal) {
    result[name] = values.to(at::kDouble) * factor;
  }
  return result;
}

double norm(const NamedTensors& tensors) {
  double sum = 0;
  for (const auto& [name, values] : tensors) {
    sum += values.square().sum().item<double>();
  }
  return std::sqrt(sum);
}

// sqrt(sum v^2 / h) where h > 0
double norm_in_inverse(const NamedTensors& tensors, const NamedTensors& h) {
  double sum = 0;
  for (const auto& [name, values] : tensors) {
    const at::Tensor used = h.at(name) > 0;
    sum +=
        (values.square() / h.at(name)).masked_select(used).sum().item<double>();
  }
  return std::sqrt(sum);
}

// a * x + b * y
NamedTensors combine(
    double a,
    const NamedTensors& x,
    double b,
    const NamedTensors& y) {
  NamedTensors result;
  for (const auto& [name, values] : x) {
    result[name] = a * values + b * y.at(name);
  }
  return result;
}

class Mismatch : public testing::Test {
 protected:
  Mismatch()
      : base_(scaled_fisher(models_.write_fisher("base", 7), 7)),
        fishers_{
            scaled_fisher(models_.write_fisher("one", 5), 5),
            scaled_fisher(models_.write_fisher("two", 4), 4)},
        options_(models_.options()) {
    options_.base_fisher = models_.in("base.safetensors");
    options_.tasks[0].fisher = models_.in("one.safetensors");
    options_.tasks[1].fisher = models_.in("two.safetensors");
  }

  // a_t (gradient at theta - gradient at theta_t)
  NamedTensors mismatch(size_t t, const std::string& model) const {
    const double a = options_.tasks[t].weight;
    return combine(
        a,
        test::define_gradient(models_.in(model), options_.tasks[t].data),
        -a,
        test::define_gradient(
            options_.tasks[t].expert, options_.tasks[t].data));
  }

  // a_t H_t (theta - theta_t)
  NamedTensors explained(size_t t, const std::string& model) const {
    const double a = options_.tasks[t].weight;
    NamedTensors step = combine(
        a,
        test::parameters_of(models_.in(model)),
        -a,
        test::parameters_of(options_.tasks[t].expert));
    for (auto& [name, values] : step) {
      values = values * fishers_[t].at(name);
    }
    return step;
  }

  void expect_norms(
      const MismatchNorms& actual,
      const NamedTensors& m,
      const NamedTensors& e) const {
    const auto expect = [&](const VectorNorms& norms, const NamedTensors& v) {
      EXPECT_NEAR(norms.two, norm(v), 1e-5 * norm(v));
      const double inverse = norm_in_inverse(v, base_);
      EXPECT_NEAR(*norms.inverse_h0, inverse, 1e-5 * inverse);
    };
    expect(actual.mismatch, m);
    expect(*actual.explained, e);
    expect(*actual.rest, combine(1, m, -1, e));
  }

  TaskModels models_;
  NamedTensors base_; // H_0
  std::vector<NamedTensors> fishers_; // H_t
  ObjectiveOptions options_;
};

TEST_F(Mismatch, EqualsItsDefinition) {
  MismatchMeter meter(options_, Grouping::kGlobal);
  const ModelMismatch result = meter.measure(models_.in("merged"));
  NamedTensors m[2];
  NamedTensors e[2];
  for (size_t t = 0; t < 2; ++t) {
    m[t] = mismatch(t, "merged");
    e[t] = explained(t, "merged");
    expect_norms(result.tasks[t].all, m[t], e[t]);
  }
  expect_norms(
      result.total.all, combine(1, m[0], 1, m[1]), combine(1, e[0], 1, e[1]));
  EXPECT_TRUE(result.total.groups.empty());
}

TEST_F(Mismatch, IsZeroAtTheExpert) {
  options_.tasks.resize(1);
  MismatchMeter meter(options_, Grouping::kGlobal);
  const ModelMismatch result = meter.measure(models_.in("one"));
  EXPECT_EQ(result.total.all.mismatch.two, 0);
  EXPECT_EQ(result.total.all.rest->two, 0);
}

TEST_F(Mismatch, IsTheSameForAnyBatchSize) {
  const auto measure = [&](int64_t batch_size) {
    options_.batch_size = batch_size;
    return MismatchMeter(options_, Grouping::kGlobal)
        .measure(models_.in("merged"))
        .total.all;
  };
  const MismatchNorms one = measure(1);
  for (const int64_t batch_size : {3, 100}) {
    const MismatchNorms other = measure(batch_size);
    EXPECT_NEAR(other.mismatch.two, one.mismatch.two, 1e-5 * one.mismatch.two);
    EXPECT_NEAR(
        *other.rest->inverse_h0,
        *one.rest->inverse_h0,
        1e-5 * *one.rest->inverse_h0);
  }
}

TEST_F(Mismatch, GroupsAddUpToTheWhole) {
  for (const Grouping grouping : {Grouping::kBlock, Grouping::kTensor}) {
    MismatchMeter meter(options_, grouping);
    const MismatchRow row = meter.measure(models_.in("merged")).tasks[1];
    double squares = 0;
    for (const auto& [name, norms] : row.groups) {
      squares += *norms.rest->inverse_h0 * *norms.rest->inverse_h0;
    }
    EXPECT_NEAR(
        std::sqrt(squares),
        *row.all.rest->inverse_h0,
        1e-9 * *row.all.rest->inverse_h0);
  }
}

TEST_F(Mismatch, TheTargetsIdentityByDefinition) {
  MismatchMeter meter(options_, Grouping::kGlobal);
  const TargetIdentity identity =
      *meter.measure(models_.in("merged"), MismatchMeter::Role::kTarget)
           .identity;
  const NamedTensors m =
      combine(1, mismatch(0, "merged"), 1, mismatch(1, "merged"));
  const NamedTensors base = test::parameters_of(models_.in("base"));
  const NamedTensors one = test::parameters_of(models_.in("one"));
  const NamedTensors two = test::parameters_of(models_.in("two"));
  NamedTensors left, right;
  double product = 0;
  for (auto& [name, target] : test::parameters_of(models_.in("merged"))) {
    const at::Tensor used = base_.at(name) > 0;
    const at::Tensor arithmetic = base.at(name) +
        (one.at(name) - base.at(name)) + 0.5 * (two.at(name) - base.at(name));
    left[name] = (target - arithmetic) * used;
    right[name] = at::where(used, -m.at(name) / base_.at(name), 0.0);
    product += (left[name] * right[name]).sum().item<double>();
  }
  EXPECT_NEAR(identity.left, norm(left), 1e-5 * norm(left));
  EXPECT_NEAR(identity.right, norm(right), 1e-5 * norm(right));
  const double difference = norm(combine(1, left, -1, right));
  EXPECT_NEAR(identity.difference, difference, 1e-5 * difference);
  EXPECT_NEAR(identity.cosine, product / norm(left) / norm(right), 1e-5);
}

TEST_F(Mismatch, CountsParametersWithoutBaseFisher) {
  MismatchMeter meter(options_, Grouping::kGlobal);
  MismatchResult result = meter.header();
  int64_t parameters = 0;
  int64_t without = 0;
  for (const auto& [name, h] : base_) {
    parameters += h.numel();
    without += h.eq(0).sum().item<int64_t>();
  }
  EXPECT_EQ(result.parameters, parameters);
  EXPECT_EQ(result.without_h0, without);
  result.models.push_back(meter.measure(models_.in("merged")));
  const auto json = nlohmann::json::parse(result.to_json());
  EXPECT_EQ(json["parameters_without_h0"], without);
  EXPECT_EQ(json["tasks"][1]["num_examples"], 4);
  EXPECT_EQ(
      json["models"][0]["total"]["mismatch"]["norm"],
      result.models[0].total.all.mismatch.two);
}

TEST_F(Mismatch, FishersAreOptional) {
  options_.base_fisher.reset();
  options_.tasks[1].fisher.reset();
  MismatchMeter meter(options_, Grouping::kGlobal);
  MismatchResult result = meter.header();
  result.models.push_back(meter.measure(models_.in("merged")));
  EXPECT_FALSE(result.without_h0);
  EXPECT_TRUE(result.models[0].tasks[0].all.explained);
  EXPECT_FALSE(result.models[0].tasks[1].all.explained);
  EXPECT_FALSE(result.models[0].total.all.explained);
  EXPECT_NE(result.to_text().find("No Fisher of the base"), std::string::npos);
  EXPECT_THROW(
      meter.measure(models_.in("merged"), MismatchMeter::Role::kTarget),
      InputError);
}

TEST_F(Mismatch, ChecksAllModelsBeforeThePasses) {
  const auto pass = [](int64_t, int64_t, const std::string&) {
    FAIL() << "a pass over the data began";
  };
  for (const auto& [name, message] : std::map<std::string, std::string>{
           {"wide",
            "intermediate.dense.weight has shape [16, 8]; expected [12, 8]"},
           {"classes", "classifier.weight has shape [4, 8]; expected [3, 8]"},
           {"nan", "classifier.bias has values that are not finite"},
           {"none", "none"}}) {
    if (name != "none") {
      models_.save_bad(name);
    }
    // Refuses it as a candidate or target, and as an expert.
    test::expect_error<InputError>(
        [&] {
          MismatchMeter(
              options_,
              Grouping::kGlobal,
              {models_.in("merged"), models_.in(name)},
              pass);
        },
        {message});
    ObjectiveOptions options = options_;
    options.tasks[1].expert = models_.in(name);
    test::expect_error<InputError>(
        [&] { MismatchMeter(options, Grouping::kGlobal, {}, pass); },
        {message});
  }
}

TEST_F(Mismatch, RefusesATargetThatIsNotFinite) {
  Encoder broken = models_.create(9);
  {
    const at::NoGradGuard no_grad;
    broken->parameters()[3].view(-1)[0] =
        std::numeric_limits<float>::quiet_NaN();
  }
  models_.save("broken", broken);
  MismatchMeter meter(options_, Grouping::kGlobal);
  test::expect_error<InputError>(
      [&] {
        meter.measure(models_.in("broken"), MismatchMeter::Role::kTarget);
      },
      {"has values that are not finite"});
}

TEST_F(Mismatch, RefusesGradientsThatOverflow) {
  Encoder huge = models_.create(9);
  {
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : huge->parameters()) {
      parameter.fill_(1e38);
    }
  }
  models_.save("huge", huge);
  // A finite loss: the pooler's large input times a large gradient of its
  // output.
  const Classifier steep(models_.in("merged"));
  auto parameters = steep.encoder->named_parameters();
  const std::map<std::string, double> factors = {
      {"bert.encoder.layer.1.output.LayerNorm.weight", 1e25},
      {"bert.encoder.layer.1.output.LayerNorm.bias", 1e25},
      {"bert.pooler.dense.weight", 1e-25},
      {"classifier.weight", 1e25}};
  for (const auto& [name, factor] : factors) {
    parameters[name].detach().mul_(factor);
  }
  models_.save("steep", steep.encoder);
  MismatchMeter meter(options_, Grouping::kGlobal);
  for (const std::string& name : std::vector<std::string>{"huge", "steep"}) {
    test::expect_error<InputError>(
        [&] { meter.measure(models_.in(name)); },
        {name + ": the gradient of the loss on", "is not finite"});
    ObjectiveOptions options = options_;
    options.tasks[0].expert = models_.in(name);
    options.tasks[0].fisher.reset();
    test::expect_error<InputError>(
        [&] { MismatchMeter(options, Grouping::kGlobal); },
        {name + ": the gradient of the loss on", "is not finite"});
  }
}

} // namespace
} // namespace merganser
