// measured_gradient_matching: rho from the metadata of Fishers, in plans.

#include "merganser/plan/measured_rho.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "merganser/engine/buffer_memory.h"
#include "merganser/plan/plan_text.h"
#include "merganser/plan/planner.h"
#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

constexpr double kExamples = 50;
constexpr double kBaseExamples = 200;

TaskVectorStatistics statistics(Estimate slope, Estimate curvature) {
  TaskVectorStatistics found;
  found.num_examples_used = 10;
  found.base_num_examples_used = 20;
  found.total = {slope, curvature};
  found.groups = {{"head", {slope, curvature}}};
  return found;
}

Estimate rho(Estimate slope, Estimate curvature) {
  return measured_rho(statistics(slope, curvature), kExamples, kBaseExamples);
}

TEST(MeasuredRho, IsTheShareOfTheProximalGradient) {
  const Estimate found = rho({-0.6, 0.3}, {0.5, 0.1});
  EXPECT_DOUBLE_EQ(found.value, 50 * 0.6 / (200 * 0.5));
  // Independent relative errors add up in squares.
  EXPECT_DOUBLE_EQ(
      found.standard_error, found.value * std::hypot(0.3 / 0.6, 0.1 / 0.5));
  EXPECT_DOUBLE_EQ(rho({0.6, 0}, {0.5, 0}).value, -found.value);
  // The curvature's error has no part if the slope is 0.
  EXPECT_DOUBLE_EQ(rho({0, 0.3}, {0.5, 0.1}).value, 0);
  EXPECT_DOUBLE_EQ(
      rho({0, 0.3}, {0.5, 0.1}).standard_error, 50 * 0.3 / (200 * 0.5));
}

TEST(MeasuredRho, IsOneForATaskVectorOfZero) {
  EXPECT_EQ(rho({0, 0}, {0, 0}).value, 1);
  EXPECT_EQ(rho({0, 0}, {0, 0}).standard_error, 0);
}

TEST(MeasuredRho, NeedsCurvature) {
  std::vector<double> values = {kAuto};
  const auto replace = [&](std::optional<Estimate> measured) {
    replace_auto(values, {measured}, [](size_t) { return "f.safetensors"; });
  };
  expect_error<InputError>(
      [&] {
        replace(rho({-0.6, 0}, {0, 0}));
      },
      {"f.safetensors: rho: auto expects curvature of the base's Fisher"});
  expect_error<InputError>(
      [&] { replace(std::nullopt); },
      {"f.safetensors: rho: auto expects a Fisher with the gradient"});
  values = {0.25};
  replace(rho({-0.6, 0}, {0, 0}));
  EXPECT_EQ(values[0], 0.25);
}

TEST(TaskVectorStatistics, AreTheSameAfterTheMetadata) {
  TaskVectorStatistics given = statistics({-0.1, 1e-9}, {1.0 / 3, 2});
  given.base_model_hash = "abc";
  const std::string text = given.to_json();
  const auto found = TaskVectorStatistics::parse(text, "f");
  EXPECT_EQ(found.to_json(), text);
  EXPECT_EQ(found.total.curvature.value, 1.0 / 3);
  EXPECT_EQ(found.groups[0].first, "head");
  for (const std::string& bad : {std::string("{}"), text.substr(0, 30)}) {
    expect_error<InputError>(
        [&] { TaskVectorStatistics::parse(bad, "f.safetensors"); },
        {"f.safetensors: the metadata key 'task_vector' is damaged"});
  }
}

class MeasuredRhoPlan : public ::testing::Test {
 protected:
  MeasuredRhoPlan() {
    for (const char* name : {"base", "a", "b"}) {
      write_model(
          folder_ / name,
          {floats("w", {1, 2, 3}),
           floats("encoder.layer.0.mlp.weight", {4, 5})});
    }
    fisher("base", kBaseExamples, std::nullopt);
    fisher("a", kExamples, statistics({-0.6, 0.3}, {0.5, 0.1}));
    fisher("b", kExamples, statistics({0.2, 0.1}, {0.5, 0.1}));
  }

  void fisher(
      const std::string& name,
      double num_examples,
      std::optional<TaskVectorStatistics> statistics,
      const std::string& base = "base") {
    FisherMetadata metadata;
    metadata.estimator = "exact";
    metadata.num_examples = static_cast<int64_t>(num_examples);
    metadata.num_examples_used = metadata.num_examples;
    metadata.labels = "model";
    metadata.base_model_hash = Checkpoint(folder_ / name).content_hash();
    if (statistics) {
      statistics->base_model_hash = Checkpoint(folder_ / base).content_hash();
      metadata.task_vector = statistics;
    }
    write_tensors(
        folder_ / (name + ".safetensors"),
        {floats("w", {1, 1, 1}), floats("encoder.layer.0.mlp.weight", {1, 1})},
        metadata.to_metadata());
  }

  // Parameters of the model b and of the merge.
  MergePlan plan(
      const std::string& of_b = "{}",
      const std::string& parameters = "{}",
      const std::string& method = "measured_gradient_matching") const {
    return make_plan(Recipe::parse(
        "merge_method: " + method +
            "\nbase_model: base\nbase_fisher: base.safetensors\nmodels:\n"
            "  - {model: a, fisher: a.safetensors}\n"
            "  - {model: b, fisher: b.safetensors, parameters: " +
            of_b + "}\nparameters: " + parameters + "\n",
        folder_.path(),
        "recipe.yaml"));
  }

  static std::vector<double> rhos(const MergePlan& plan, size_t tensor) {
    return plan.tensors[tensor].parameters[0].rho;
  }

  TemporaryFolder folder_;
};

TEST_F(MeasuredRhoPlan, TakesTheMeasuredValues) {
  const MergePlan plan = this->plan();
  for (size_t tensor = 0; tensor < 2; ++tensor) {
    const std::vector<double> found = rhos(plan, tensor);
    ASSERT_EQ(found.size(), 2u);
    EXPECT_DOUBLE_EQ(found[0], 0.3);
    EXPECT_DOUBLE_EQ(found[1], -0.1);
  }
  const std::string text = plan_text(plan, buffer_memory(plan, 0));
  for (const char* words : {"rho", "0.300 ± 0.162", "-0.100 ± 0.054"}) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
  }
  const auto json =
      nlohmann::json::parse(plan_json(plan, buffer_memory(plan, 0)));
  const auto& measured = json["models"][1]["rho_measured"];
  EXPECT_DOUBLE_EQ(measured["value"], -0.1);
  EXPECT_DOUBLE_EQ(measured["standard_error"], 0.1 * std::hypot(0.5, 0.2));
}

TEST(MeasuredRho, IsUnstableFarFromZeroAndOne) {
  for (const Estimate stable :
       {Estimate{0, 0}, {0.2, 0.1}, {1.1, 0.3}, {-0.3, 0.9}, {2, 1}}) {
    EXPECT_EQ(unstable_rho(stable), std::nullopt) << stable.value;
  }
  for (const Estimate wild : {Estimate{16.1, 0.2}, {0.3, 15}, {-1.5, 0.1}}) {
    EXPECT_NE(unstable_rho(wild), std::nullopt) << wild.value;
  }
  EXPECT_EQ(
      *unstable_rho({16.14, 8.06}),
      "rho is 16.1 ± 8.1, where 0 is plain fine-tuning and 1 training with the "
      "proximal term");
}

TEST_F(MeasuredRhoPlan, NotesUnstableValuesThatItTakes) {
  fisher("b", kExamples, statistics({-30, 0.1}, {0.5, 0.1}));
  const auto notes = [](const MergePlan& plan) {
    return std::ranges::count_if(plan.notes, [](const std::string& note) {
      return note.find("b.safetensors: rho is 15 ± ") != std::string::npos &&
          note.ends_with("; estimate it with a larger --limit, or set rho");
    });
  };
  EXPECT_EQ(notes(plan()), 1);
  EXPECT_EQ(notes(plan("{rho: 0.5}")), 0);
  EXPECT_EQ(notes(plan("{}", "{rho: 0.5}")), 0);
}

TEST_F(MeasuredRhoPlan, ScalesWithTheRecipesNumbersOfExamples) {
  const MergePlan plan = make_plan(Recipe::parse(
      "merge_method: measured_gradient_matching\nbase_model: base\n"
      "base_fisher: base.safetensors\nbase_num_examples: 100\n"
      "models: [{model: a, fisher: a.safetensors, num_examples: 75}]\n",
      folder_.path(),
      "recipe.yaml"));
  EXPECT_DOUBLE_EQ(rhos(plan, 0)[0], 0.3 * (75.0 / 50) * (200.0 / 100));
}

TEST_F(MeasuredRhoPlan, TakesNumbersPerModelAndPerLayer) {
  const MergePlan per_model = plan("{rho: 0.7}");
  EXPECT_DOUBLE_EQ(rhos(per_model, 0)[0], 0.3);
  EXPECT_EQ(rhos(per_model, 0)[1], 0.7);
  const std::string text = plan_text(per_model, buffer_memory(per_model, 0));
  EXPECT_NE(text.find(" 0.7 "), std::string::npos) << text;
  EXPECT_EQ(text.find("-0.100"), std::string::npos) << text;

  const std::string rules = "{rho: [{filter: mlp, value: 0.5}, {value: auto}]}";
  const MergePlan per_layer = plan(rules);
  for (size_t tensor = 0; tensor < 2; ++tensor) {
    const bool mlp = per_layer.tensors[tensor].output.name != "w";
    EXPECT_DOUBLE_EQ(rhos(per_layer, tensor)[1], mlp ? 0.5 : -0.1);
  }
}

TEST_F(MeasuredRhoPlan, NeedsStatisticsForAuto) {
  fisher("b", kExamples, std::nullopt);
  expect_error<InputError>(
      [&] { plan(); },
      {"b.safetensors: rho: auto expects a Fisher with the gradient along the "
       "task vector, got one without"});
  EXPECT_EQ(rhos(plan("{rho: 0.7}"), 0)[1], 0.7);
}

TEST_F(MeasuredRhoPlan, NeedsStatisticsOfTheRecipesBase) {
  write_model(folder_ / "c", {floats("w", {7})});
  fisher("b", kExamples, statistics({0.2, 0.1}, {0.5, 0.1}), "c");
  expect_error<InputError>(
      [&] { plan(); }, {"estimate the Fisher with this model as --base"});
  // Other methods do not use them.
  EXPECT_EQ(plan("{}", "{}", "gradient_matching").tensors.size(), 2u);
}

TEST_F(MeasuredRhoPlan, RefusesAutoInLists) {
  for (const char* rho : {"[auto, 1]", "[auto]", "{sweep: [auto, 1]}"}) {
    expect_error<InputError>(
        [&] { plan("{rho: " + std::string(rho) + "}"); }, {"must be a number"});
  }
  expect_error<InputError>(
      [&] { plan("{weight: auto}"); }, {"does not take weight: auto"});
}

} // namespace
} // namespace merganser::test
