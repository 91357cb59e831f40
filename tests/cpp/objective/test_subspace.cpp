// Statistics in a subspace against one float64 backward pass per example and
// logit.

#include "merganser/objective/subspace.h"

#include <gtest/gtest.h>

#include "support/small_task_models.h"

namespace merganser {
namespace {

using test::NamedTensors;
using test::TaskModels;

// tau_t by parameter, float64.
std::vector<NamedTensors> task_vectors(const TaskModels& models) {
  std::vector<NamedTensors> vectors;
  const NamedTensors base = test::parameters_of(models.in("base"));
  for (const char* expert : {"one", "two"}) {
    NamedTensors vector = test::parameters_of(models.in(expert));
    for (auto& [name, values] : vector) {
      values = values - base.at(name);
    }
    vectors.push_back(std::move(vector));
  }
  return vectors;
}

class SubspaceTest : public testing::TestWithParam<Grouping> {
 protected:
  SubspaceTest()
      : objective_(models_.options()), vectors_(task_vectors(models_)) {
    const at::Tensor base = objective_.arena().parameters.clone();
    for (size_t t = 0; t < 2; ++t) {
      subspace_.task_vectors.push_back(objective_.read_expert(t).sub_(base));
    }
    subspace_.groups = make_groups(objective_.arena(), GetParam());
    objective_.arena().parameters.copy_(
        objective_.read_model(models_.in("merged")));
  }

  // <gradient, tau_tg> for every column.
  at::Tensor products(const NamedTensors& gradient) const {
    const auto groups = static_cast<int64_t>(subspace_.groups.names.size());
    at::Tensor result = at::zeros({2, groups}, at::kDouble);
    const auto& entries = objective_.arena().entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      for (size_t t = 0; t < 2; ++t) {
        const std::string& name = entries[i].name;
        result[static_cast<int64_t>(t)]
              [static_cast<int64_t>(subspace_.groups.of_entry[i])] +=
            (gradient.at(name) * vectors_[t].at(name)).sum();
      }
    }
    return result.view(-1);
  }

  // Products of every logit's gradient: (K, C).
  at::Tensor jacobian(Classifier& model, const at::Tensor& logits) const {
    std::vector<at::Tensor> rows;
    const auto parameters = model.encoder->named_parameters();
    for (int64_t k = 0; k < logits.size(0); ++k) {
      const auto gradients = torch::autograd::grad(
          {logits[k]},
          model.encoder->parameters(),
          {},
          /*retain_graph=*/true);
      NamedTensors named;
      for (size_t p = 0; p < gradients.size(); ++p) {
        named[parameters[p].key()] = gradients[p];
      }
      rows.push_back(products(named));
    }
    return at::stack(rows);
  }

  TaskModels models_;
  JointObjective objective_;
  std::vector<NamedTensors> vectors_;
  Subspace subspace_;
};

void expect_close(
    const at::Tensor& actual,
    const at::Tensor& expected,
    double tolerance = 1e-5) {
  EXPECT_LE(
      (actual - expected).norm().item<double>(),
      tolerance * expected.norm().item<double>());
}

TEST_P(SubspaceTest, StatisticsEqualSumsOverExamples) {
  Classifier model = test::double_model(models_.in("merged"));
  const JointObjective::Task& task = objective_.tasks()[1];
  const int64_t columns = subspace_.columns();
  at::Tensor gradient = at::zeros({columns}, at::kDouble);
  at::Tensor fisher = at::zeros({columns, columns}, at::kDouble);
  for (int64_t i = 0; i < task.data.size(); ++i) {
    const at::Tensor logits = test::logits_of(model.encoder, task.data, i);
    const at::Tensor j = jacobian(model, logits);
    const at::Tensor p = at::softmax(logits.detach(), 0);
    gradient += at::mv(j.t(), p - task.targets[i]);
    fisher += at::mm(j.t(), at::mm(at::diag(p) - at::outer(p, p), j));
  }
  const SubspaceStatistics found =
      subspace_statistics(objective_, subspace_, 1, task.examples);
  expect_close(found.gradient, 0.5 * gradient); // the task's weight
  expect_close(found.fisher, 0.5 * fisher);
}

TEST_P(SubspaceTest, LeavesOrdinaryGradientsAlone) {
  objective_.arena().gradients.zero_();
  subspace_statistics(objective_, subspace_, 0, objective_.tasks()[0].examples);
  EXPECT_EQ(objective_.arena().gradients.abs().max().item<float>(), 0);
  objective_.add_gradient(0, objective_.tasks()[0].examples);
  EXPECT_GT(objective_.arena().gradients.abs().max().item<float>(), 0);
}

TEST_P(SubspaceTest, QuadraticByDefinition) {
  const FisherResult fisher = models_.write_fisher("base", 3);
  const NamedTensors here = test::parameters_of(models_.in("merged"));
  const NamedTensors base = test::parameters_of(models_.in("base"));
  at::Tensor flat = objective_.arena().zeros();
  NamedTensors h;
  for (const auto& [name, values] : fisher.diagonal) {
    h[name] = values.to(at::kDouble);
    for (const Arena::Entry& entry : objective_.arena().entries()) {
      if (entry.name == name) {
        Arena::view(flat, entry).copy_(values);
      }
    }
  }
  const SubspaceStatistics found = quadratic_statistics(
      objective_.arena(),
      subspace_,
      objective_.read_model(models_.in("base")),
      flat);
  NamedTensors gradient;
  for (const auto& [name, values] : h) {
    gradient[name] = values * (here.at(name) - base.at(name));
  }
  expect_close(found.gradient, products(gradient));
  // Row (t, g): H_0 times the column, on the group only.
  const int64_t groups = subspace_.columns() / 2;
  for (int64_t column = 0; column < subspace_.columns(); ++column) {
    NamedTensors product;
    const auto& entries = objective_.arena().entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      const std::string& name = entries[i].name;
      const bool inside =
          static_cast<int64_t>(subspace_.groups.of_entry[i]) == column % groups;
      product[name] = h.at(name) * vectors_[column / groups].at(name) * inside;
    }
    expect_close(found.fisher[column], products(product));
  }
}

TEST_P(SubspaceTest, UnitWeightsMoveFromTheBaseToTheExpert) {
  Arena& arena = objective_.arena();
  arena.parameters.copy_(objective_.read_model(models_.in("base")));
  at::Tensor weights = at::zeros({2, subspace_.columns() / 2}, at::kDouble);
  weights[1].fill_(1);
  move_in_subspace(arena, subspace_, weights.view(-1));
  expect_close(arena.parameters, objective_.read_expert(1), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(
    Groups,
    SubspaceTest,
    testing::Values(Grouping::kGlobal, Grouping::kBlock, Grouping::kTensor),
    [](const auto& info) { return grouping_name(info.param); });

} // namespace
} // namespace merganser
