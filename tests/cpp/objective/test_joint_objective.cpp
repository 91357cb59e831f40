// The joint objective against float64 passes over one example at a time.

#include "merganser/objective/joint_objective.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/small_task_models.h"

namespace merganser {
namespace {

using test::NamedTensors;
using test::TaskModels;

void expect_gradient(
    JointObjective& objective,
    const NamedTensors& expected,
    double scale) {
  double whole = 0;
  for (const auto& [name, gradient] : expected) {
    whole += gradient.norm().item<double>();
  }
  for (const Arena::Entry& entry : objective.arena().entries()) {
    const at::Tensor actual =
        Arena::view(objective.arena().gradients, entry).to(at::kDouble);
    const double error =
        (actual - scale * expected.at(entry.name)).norm().item<double>();
    EXPECT_LE(error, 1e-6 * scale * whole) << entry.name;
  }
}

TEST(JointObjective, TheGradientIsTheSumOverSingleExamples) {
  const TaskModels models;
  const NamedTensors expected =
      test::define_gradient(models.in("merged"), models.in("two.jsonl"));
  for (const int64_t batch_size : {1, 3, 100}) {
    ObjectiveOptions options = models.options();
    options.batch_size = batch_size;
    JointObjective objective(options);
    objective.arena().parameters.copy_(
        objective.read_model(models.in("merged")));
    objective.add_gradient(1, objective.tasks()[1].examples);
    expect_gradient(objective, expected, /*scale=*/0.5);
  }
}

TEST(JointObjective, ASubsetIsScaledToTheWholeSet) {
  const TaskModels models;
  ObjectiveOptions options = models.options();
  options.limit = 3;
  JointObjective objective(options);
  const JointObjective::Task& task = objective.tasks()[0];
  ASSERT_EQ(task.examples.size(), 3);
  EXPECT_DOUBLE_EQ(task.scale(3), 5.0 / 3);
  double sum = 0;
  for (const int64_t i : task.examples) {
    sum += objective.loss(0, {i}) / 5;
  }
  EXPECT_NEAR(objective.loss(0, task.examples), 5.0 / 3 * sum, 1e-5);
}

TEST(JointObjective, TheFisherSaysHowManyExamplesTheTaskHas) {
  const TaskModels models;
  JointObjective rows(models.options());
  models.write_fisher("one", 10); // one.jsonl has 5
  ObjectiveOptions options = models.options();
  options.tasks[0].fisher = models.in("one.safetensors");
  JointObjective objective(options);
  const auto& examples = objective.tasks()[0].examples;
  EXPECT_EQ(objective.tasks()[0].num_examples, 10);
  EXPECT_EQ(objective.tasks()[1].num_examples, 4);
  EXPECT_DOUBLE_EQ(objective.loss(0, examples), 2 * rows.loss(0, examples));
}

TEST(JointObjective, LossAndGradientAgreeOnTheLoss) {
  const TaskModels models;
  JointObjective objective(models.options());
  const auto& examples = objective.tasks()[0].examples;
  EXPECT_DOUBLE_EQ(
      objective.loss(0, examples), objective.add_gradient(0, examples));
}

TEST(JointObjective, PrecisionsAreFishersTimesNumbersOfExamples) {
  const TaskModels models;
  const FisherResult base = models.write_fisher("base", 7);
  const FisherResult one = models.write_fisher("one", 40); // 5 rows
  ObjectiveOptions options = models.options();
  options.base_fisher = models.in("base.safetensors");
  options.tasks[0].fisher = models.in("one.safetensors");
  JointObjective objective(options);
  const Arena::Entry& entry = objective.arena().entries()[2];
  const auto find = [&](const FisherResult& fisher) {
    for (const auto& [name, values] : fisher.diagonal) {
      if (name == entry.name) {
        return values;
      }
    }
    return at::Tensor();
  };
  EXPECT_TRUE(at::allclose(
      Arena::view(objective.base_precision(), entry), 7 * find(base)));
  EXPECT_TRUE(at::allclose(
      Arena::view(objective.read_precision(0), entry), 40 * find(one)));
  EXPECT_FALSE(objective.read_precision(1).defined());
}

TEST(JointObjective, RefusesAFisherOfOtherWeights) {
  const TaskModels models;
  models.write_fisher("two", 4);
  ObjectiveOptions options = models.options();
  options.tasks[0].fisher = models.in("two.safetensors");
  test::expect_error<InputError>(
      [&] { JointObjective objective(options); },
      {"belongs to a different model than"});
}

TEST(JointObjective, RefusesFewerExamplesThanClasses) {
  const TaskModels models;
  ObjectiveOptions options = models.options();
  options.limit = 2;
  test::expect_error<InputError>(
      [&] { JointObjective objective(options); },
      {"expected at least 3 examples, one for each class, got 2"});
}

TEST(JointObjective, RefusesOptionsOutOfRange) {
  const TaskModels models;
  ObjectiveOptions options = models.options();
  options.tasks[0].weight = 0;
  EXPECT_THROW(JointObjective{options}, InputError);
  options = models.options();
  options.tasks.clear();
  EXPECT_THROW(JointObjective{options}, InputError);
}

} // namespace
} // namespace merganser
