#include "merganser/objective/refine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "merganser/base/interrupt.h"
#include "merganser/objective/map_objective.h"
#include "support/expect_error.h"
#include "support/small_task_models.h"

namespace merganser {
namespace {

using test::TaskModels;

// Expects steps that were not finite, rejected and counted in the report.
void expect_not_finite_steps(const RefineResult& result) {
  int64_t rejected = 0;
  int64_t not_finite = 0;
  for (const RefineStep& step : result.steps) {
    rejected += step.rejected;
    not_finite += step.not_finite;
    EXPECT_EQ(to_json(step)["not_finite"], step.not_finite);
  }
  EXPECT_GT(not_finite, 0) << result.to_text();
  EXPECT_GE(rejected, not_finite);
}

class Refine : public testing::TestWithParam<RefineSolver> {
 protected:
  Refine() {
    models_.write_data("one.jsonl", many(20), 0);
    models_.write_data("two.jsonl", many(15), 1);
    models_.write_fisher("base", 2);
    options_.objective = models_.options();
    options_.objective.base_fisher = models_.in("base.safetensors");
    options_.model = models_.in("merged");
    options_.out = models_.in("out");
    options_.solver = GetParam();
    options_.learning_rate = 1e-3;
    options_.steps = options_.solver == RefineSolver::kAdamW ? 12 : 3;
  }

  static std::vector<std::string> many(int count) {
    const std::vector<std::string> words = {"a", "b", "c", "d", "e", "f", "g"};
    std::vector<std::string> texts;
    for (int i = 0; i < count; ++i) {
      texts.push_back(words[i % 7] + " " + words[(i * i + 3) % 7]);
    }
    return texts;
  }

  std::string weights(const std::string& name) const {
    return read_file(models_.in(name) / "model.safetensors");
  }

  // Interrupts a run into OUT after its second evaluation.
  void interrupt() {
    static int64_t evaluations;
    evaluations = 0;
    set_interrupt_hook([] {
      if (evaluations > 1) {
        throw Interrupted("interrupted");
      }
    });
    const auto count = [](int64_t, int64_t, const std::string&) {
      ++evaluations;
    };
    EXPECT_THROW(refine(options_, count), Interrupted);
    set_interrupt_hook(nullptr);
  }

  TaskModels models_;
  RefineOptions options_;
};

TEST_P(Refine, LowersTheObjectiveAndKeepsTheBestStep) {
  const RefineResult result = refine(options_);
  ASSERT_GE(result.steps.size(), 2);
  const RefineStep& kept = result.steps[result.kept];
  for (const RefineStep& step : result.steps) {
    EXPECT_GE(step.held_out, kept.held_out);
  }
  EXPECT_LT(result.steps.back().objective, result.steps[0].objective);
  EXPECT_EQ(result.num_examples_held_out, (std::vector<int64_t>{4, 3}));

  // The model in OUT has the objective that the report states.
  RefineOptions check = options_;
  check.model = options_.out;
  MapObjective objective(check);
  const MapObjective::Value held_out = objective.held_out();
  const double weight = objective.total_weight();
  EXPECT_NEAR(held_out.objective / weight, kept.held_out, 1e-6);
  EXPECT_NEAR(held_out.losses / weight, kept.held_out_loss, 1e-6);
  const auto json =
      nlohmann::json::parse(read_file(options_.out / "refine.json"));
  EXPECT_EQ(json["kept_step"], kept.step);
  EXPECT_EQ(json["completed"], true);
  EXPECT_EQ(json["steps"].size(), result.steps.size());
  EXPECT_EQ(json["stopped"].is_null(), !result.stopped);
  if (result.steps.back().step < options_.steps) {
    EXPECT_TRUE(result.stopped);
  }
  EXPECT_FALSE(std::filesystem::exists(models_.in("out.partial")));
}

TEST_P(Refine, AnInterruptKeepsTheBestAndResumesToTheSameBytes) {
  refine(options_);
  const std::string expected = weights("out");
  options_.out = models_.in("other");
  interrupt();
  const auto json =
      nlohmann::json::parse(read_file(options_.out / "refine.json"));
  EXPECT_EQ(json["completed"], false);

  test::expect_error<InputError>(
      [&] { refine(options_); }, {"exists and is not an empty directory"});
  options_.resume = true;
  refine(options_);
  EXPECT_TRUE(weights("other") == expected); // bytes that nobody can read
  EXPECT_FALSE(std::filesystem::exists(models_.in("other.partial")));
}

using RefineAdamW = Refine; // the other solvers reject such a step

TEST_P(RefineAdamW, ResumesAfterAStepThatIsNotFinite) {
  options_.learning_rate = 1e30;
  const RefineResult whole = refine(options_);
  for (const size_t i : {1, 2}) {
    EXPECT_FALSE(std::isfinite(whole.steps[i].objective));
    EXPECT_EQ(whole.steps[i].rejected, 1);
    EXPECT_EQ(whole.steps[i].not_finite, 1);
  }
  EXPECT_EQ(whole.steps[1].setting, 5e29);
  EXPECT_EQ(whole.steps[2].setting, 2.5e29);
  options_.out = models_.in("other");
  interrupt();
  options_.resume = true;
  const RefineResult resumed = refine(options_);
  ASSERT_EQ(resumed.steps.size(), whole.steps.size());
  for (size_t i = 0; i < whole.steps.size(); ++i) {
    EXPECT_EQ(to_json(resumed.steps[i]).dump(), to_json(whole.steps[i]).dump());
  }
}

using RefineNotFinite = Refine;

TEST_P(RefineNotFinite, CountsTheTrials) {
  // Probabilities are 0 or 1 to rounding: a curvature of about 1e-24 asks for
  // steps as long as its inverse.
  const Classifier saturated(options_.model);
  saturated.encoder->named_parameters()["classifier.bias"].detach()[0] = 55;
  models_.save("saturated", saturated.encoder);
  options_.model = models_.in("saturated");
  options_.targets = RefineTargets::kPredictions;
  options_.objective.base_fisher.reset();
  options_.learning_rate = 1e30;
  const RefineResult result = refine(options_);
  expect_not_finite_steps(result);
  EXPECT_TRUE(std::isfinite(result.steps[result.kept].held_out));
}

TEST_P(Refine, RefusesExpertsOfOtherShapesAndValuesThatAreNotFinite) {
  for (const RefineTargets targets :
       {RefineTargets::kLabels, RefineTargets::kPredictions}) {
    options_.targets = targets;
    for (const auto& [name, message] : std::map<std::string, std::string>{
             {"wide",
              "intermediate.dense.weight has shape [16, 8]; expected [12, 8]"},
             {"classes", "classifier.weight has shape [4, 8]; expected [3, 8]"},
             {"nan", "classifier.bias has values that are not finite"}}) {
      models_.save_bad(name);
      options_.objective.tasks[1].expert = models_.in(name);
      test::expect_error<InputError>([&] { refine(options_); }, {message});
      EXPECT_FALSE(std::filesystem::exists(models_.in("out.partial")));
    }
  }
}

TEST_P(Refine, RefusesAStartOfOtherShapes) {
  for (const auto& [name, message] : std::map<std::string, std::string>{
           {"wide",
            "intermediate.dense.weight has shape [16, 8]; expected [12, 8]"},
           {"classes", "classifier.weight has shape [4, 8]; expected [3, 8]"},
           {"nan", "classifier.bias has values that are not finite"}}) {
    models_.save_bad(name);
    options_.model = models_.in(name);
    test::expect_error<InputError>([&] { refine(options_); }, {message});
    EXPECT_FALSE(std::filesystem::exists(models_.in("out.partial")));
  }
}

using RefineSubspace = Refine;

TEST_P(RefineSubspace, RejectsTrialsThatAreNotFinite) {
  // Two units whose activation, gradient and Fisher of the base are 0, and task
  // vectors that switch one of them on in either direction: its output
  // overflows.
  const auto change = [&](const std::string& name, const auto& edit) {
    const Classifier model(models_.in(name));
    auto parameters = model.encoder->named_parameters();
    const std::string layer = "bert.encoder.layer.1.";
    for (const int64_t unit : {0, 3}) {
      edit(
          parameters[layer + "intermediate.dense.bias"].detach()[unit],
          parameters[layer + "output.dense.weight"].detach().select(1, unit),
          unit == 0 ? 1 : -1);
    }
    models_.save(name, model.encoder);
  };
  change("merged", [](const at::Tensor& bias, const at::Tensor& out, double) {
    bias.fill_(-60);
    out.fill_(20);
  });
  change("one", [](const at::Tensor& bias, const at::Tensor&, double sign) {
    bias.fill_(3e38 * sign);
  });
  const RefineResult result = refine(options_);
  expect_not_finite_steps(result);
  EXPECT_LE(result.steps[result.kept].held_out, result.steps[0].held_out);
}

TEST_P(RefineSubspace, ARunKilledAfterItsLastStepTakesNoOther) {
  // Leaves no task vector to move along: the base is the expert.
  for (ObjectiveTask& task : options_.objective.tasks) {
    task.expert = models_.in("base");
  }
  const RefineResult whole = refine(options_);
  ASSERT_EQ(whole.steps.size(), 2);
  ASSERT_TRUE(whole.stopped);
  options_.out = models_.in("other");
  const auto kill = [](int64_t step, int64_t, const std::string&) {
    if (step == 1) {
      throw std::runtime_error("killed");
    }
  };
  EXPECT_THROW(refine(options_, kill), std::runtime_error);
  options_.resume = true;
  const RefineResult resumed = refine(options_);
  EXPECT_EQ(resumed.steps.size(), 2);
  EXPECT_EQ(resumed.stopped, whole.stopped);
}

TEST_P(Refine, NeverEndsWorseThanItBegan) {
  // The held-out objective of the start is that of a minimum: the expert's own
  // predictions are its targets.
  options_.objective.tasks.resize(1);
  options_.objective.base_fisher.reset();
  options_.model = models_.in("one");
  options_.targets = RefineTargets::kPredictions;
  options_.learning_rate = 10;
  const RefineResult result = refine(options_);
  const double start = result.steps[0].held_out;
  EXPECT_NEAR(result.steps[result.kept].held_out, start, 1e-6); // rounding
  if (options_.solver == RefineSolver::kAdamW) {
    EXPECT_EQ(result.kept, 0);
    EXPECT_EQ(weights("out"), weights("one"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Solvers,
    RefineAdamW,
    testing::Values(RefineSolver::kAdamW));

INSTANTIATE_TEST_SUITE_P(
    Solvers,
    RefineNotFinite,
    testing::Values(RefineSolver::kAdamW, RefineSolver::kNewton));

INSTANTIATE_TEST_SUITE_P(
    Solvers,
    RefineSubspace,
    testing::Values(RefineSolver::kSubspace));

INSTANTIATE_TEST_SUITE_P(
    Solvers,
    Refine,
    testing::Values(
        RefineSolver::kAdamW,
        RefineSolver::kNewton,
        RefineSolver::kSubspace),
    [](const auto& info) { return refine_solver_name(info.param); });

TEST(MapObjective, GradientIsThatOfLossesAndPrior) {
  const TaskModels models;
  models.write_fisher("base", 2);
  RefineOptions options;
  options.objective = models.options();
  options.objective.tasks.resize(1);
  options.objective.base_fisher = models.in("base.safetensors");
  options.model = models.in("merged");
  MapObjective objective(options);
  const auto& training = objective.training_examples();
  const auto& held_out = objective.held_out_examples();
  EXPECT_EQ(training[0].size(), 4);
  EXPECT_EQ(held_out[0].size(), 1);
  const double value = objective.training();
  EXPECT_NEAR(objective.gradient(), value, 1e-6 * value);
  // A step of length e along the gradient changes J by -e |g|^2.
  const at::Tensor gradient = objective.arena().gradients.clone();
  const double square = gradient.square().sum().item<double>();
  const double length = 1e-5;
  objective.arena().parameters.sub_(gradient, length);
  EXPECT_NEAR((value - objective.training()) / (length * square), 1, 0.02);
}

TEST(MapObjective, RefusesTooFewExamplesToHoldSomeOut) {
  const TaskModels models;
  RefineOptions options;
  options.objective = models.options();
  options.objective.limit = 3;
  options.model = models.in("merged");
  test::expect_error<InputError>(
      [&] { MapObjective objective(options); },
      {"expected at least 3 examples to train on", "1 are held out"});
}

} // namespace
} // namespace merganser
