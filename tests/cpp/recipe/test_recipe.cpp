#include <gtest/gtest.h>

#include "merganser/base/error.h"
#include "merganser/io/atomic_file.h"
#include "merganser/recipe/methods.h"
#include "merganser/recipe/parameter_values.h"
#include "merganser/recipe/recipe.h"
#include "parse_recipe.h"
#include "support/environment.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

double value(const Settings& settings, const std::string& name) {
  return *settings.at(name).at("any tensor", 0.5);
}

// alpha_t of a tensor.
std::vector<double> weights(const Recipe& recipe) {
  std::vector<const Settings*> models;
  for (const RecipeModel& model : recipe.models) {
    models.push_back(&model.parameters);
  }
  const TensorPlace place = {
      "t", std::vector<std::string>(models.size(), "t"), 0};
  return resolve_parameters(
             *recipe.method, recipe.parameters, models, {}, place, 0)
      .weights;
}

TEST(Recipe, ReadsEveryKey) {
  const Recipe recipe = parse_recipe(R"(
merge_method: removal
base_model: ../models/base/
base_fisher: base.safetensors
base_num_examples: 1000
models:
  - model: a
    fisher: /fishers/a.safetensors
    num_examples: 2.5e2
    parameters: {weight: 0.5}
  - model: b
    fisher: b.safetensors
parameters: {delta: 0, clamp: 1, floor: 1e-9}
heads: per_task
dtype: float64
out_dtype: bfloat16
)");
  EXPECT_EQ(recipe.method, &find_method("removal"));
  EXPECT_EQ(recipe.base_model, "/models/base");
  EXPECT_EQ(recipe.base_fisher, "/recipes/base.safetensors");
  EXPECT_EQ(recipe.base_num_examples, 1000);
  ASSERT_EQ(recipe.models.size(), 2u);
  EXPECT_EQ(recipe.models[0].model, "/recipes/a");
  EXPECT_EQ(recipe.models[0].fisher, "/fishers/a.safetensors");
  EXPECT_EQ(recipe.models[0].num_examples, 250);
  EXPECT_EQ(value(recipe.models[0].parameters, "weight"), 0.5);
  EXPECT_EQ(recipe.models[1].num_examples, std::nullopt);
  EXPECT_TRUE(recipe.models[1].parameters.empty());
  EXPECT_EQ(value(recipe.parameters, "delta"), 0);
  EXPECT_EQ(value(recipe.parameters, "clamp"), 1);
  EXPECT_EQ(value(recipe.parameters, "floor"), 1e-9);
  EXPECT_EQ(recipe.heads, HeadMode::kPerTask);
  EXPECT_TRUE(recipe.float64);
  EXPECT_EQ(recipe.out_dtype, DType::kBF16);
}

TEST(Recipe, NormalizesLinearWeightsByDefault) {
  const std::string models =
      "base_model: c\n"
      "models: [{model: a, parameters: {weight: 1}}, "
      "{model: b, parameters: {weight: 3}}]\n";
  EXPECT_EQ(
      weights(parse_recipe("merge_method: linear\n" + models)),
      (std::vector<double>{0.25, 0.75}));
  EXPECT_EQ(
      weights(parse_recipe(
          "merge_method: linear\nparameters: {normalize: false}\n" + models)),
      (std::vector<double>{1, 3}));
  EXPECT_EQ(
      weights(parse_recipe("merge_method: task_arithmetic\n" + models)),
      (std::vector<double>{1, 3}));
}

// mergekit's dtype is also that of the output unless out_dtype is set.
TEST(Recipe, DtypeIsTheTypeOfTheOutputToo) {
  const Recipe recipe = parse_recipe(
      "{merge_method: linear, models: [{model: a}], dtype: float16}");
  EXPECT_EQ(recipe.out_dtype, DType::kF16);
  EXPECT_FALSE(recipe.float64);
}

struct BadRecipe {
  const char* name;
  const char* yaml;
  const char* place; // line:column
  const char* words;
};

class BadRecipes : public ::testing::TestWithParam<BadRecipe> {};

TEST_P(BadRecipes, AreRefusedWithTheirPlace) {
  const BadRecipe& bad = GetParam();
  try {
    parse_recipe(bad.yaml);
    FAIL() << "was accepted";
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find(std::string("r.yaml:") + bad.place + ": "), 0u)
        << message;
    EXPECT_NE(message.find(bad.words), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Recipe,
    BadRecipes,
    ::testing::Values(
        BadRecipe{
            "NotYaml",
            "merge_method: linear\n  models: a",
            "2:9",
            "invalid YAML"},
        BadRecipe{
            "NotUtf8",
            "merge_method: linear\nmodels: [{model: \xc3\xa9\xe9}]",
            "2:19",
            "is not UTF-8"},
        BadRecipe{"NotAMapping", "- linear", "1:1", "must be a mapping"},
        BadRecipe{
            "MergedUnknownKey",
            "merge_method: linear\nmodels: [{model: a, <<: {weight: 1}}]",
            "2:26",
            "unknown key 'weight' in models[0]"},
        BadRecipe{
            "MergedText",
            "merge_method: linear\nmodels: [{model: a, <<: b}]",
            "2:25",
            "<< must name a mapping or a list of mappings, not 'b'"},
        BadRecipe{
            "QuotedMergeKey",
            "merge_method: linear\nmodels: [{model: a, '<<': {weight: 1}}]",
            "2:21",
            "unknown key '<<' in models[0]"},
        BadRecipe{
            "TwoMergeKeys",
            "merge_method: linear\nmodels: [{<<: {model: a}, <<: {model: b}}]",
            "2:27",
            "duplicate key '<<'"},
        BadRecipe{
            "NoWeight",
            "merge_method: linear\nmodels: [{model: a, parameters: {weight: "
            "}}]",
            "2:42",
            "weight must be a number, not nothing"},
        BadRecipe{
            "Revision",
            "merge_method: linear\nmodels: [{model: {model: {path: a, "
            "revision: "
            "b}}}]",
            "2:46",
            "is of no use: a local directory has no revisions"},
        BadRecipe{
            "Architecture",
            "merge_method: linear\n"
            "models: [{model: {model: a, override_architecture: b}}]",
            "2:52",
            "models[0].model.override_architecture is not supported"},
        BadRecipe{
            "AdapterOfTheBase",
            "merge_method: ties\nbase_model: {model: a, lora: b}\n"
            "models: [{model: c}]",
            "2:13",
            "base_model cannot have an adapter"},
        BadRecipe{
            "UnknownKey",
            "merge_method: linear\nmodel: []\nmodels: [{model: a}]",
            "2:1",
            "unknown key 'model'; available: merge_method, base_model"},
        BadRecipe{
            "UnknownModelKey",
            "merge_method: linear\nmodels:\n  - model: a\n    weight: 1",
            "4:5",
            "unknown key 'weight' in models[0]; available: model"},
        BadRecipe{
            "UnknownParameter",
            "merge_method: linear\nmodels: [{model: a}]\nparameters: {x: 1}",
            "3:14",
            "unknown key 'x' in parameters"},
        BadRecipe{
            "KeyTwice",
            "merge_method: linear\nmerge_method: linear\nmodels: [{model: a}]",
            "2:1",
            "duplicate key 'merge_method'"},
        BadRecipe{
            "NoMethod",
            "models: [{model: a}]",
            "1:1",
            "'merge_method' is"},
        BadRecipe{
            "UnknownMethod",
            "merge_method: tie\nmodels: [{model: a}]",
            "1:15",
            "unknown merge method 'tie'; available: linear, task_arithmetic"},
        BadRecipe{"NoModels", "merge_method: linear", "1:1", "'models' is"},
        BadRecipe{
            "EmptyModels",
            "merge_method: linear\nmodels: []",
            "2:9",
            "a list of at least one"},
        BadRecipe{
            "ModelIsNotAMapping",
            "merge_method: linear\nmodels: [a]",
            "2:10",
            "models[0] must be a mapping, not 'a'"},
        BadRecipe{
            "WeightIsAText",
            "merge_method: linear\nmodels:\n"
            "  - {model: a, parameters: {weight: much}}",
            "3:37",
            "models[0].parameters.weight must be a number, not 'much'"},
        BadRecipe{
            "WeightIsNotFinite",
            "merge_method: linear\nmodels:\n"
            "  - {model: a, parameters: {weight: .nan}}",
            "3:37",
            "must be a number"},
        BadRecipe{
            "WeightsSumToNothing",
            "merge_method: linear\nmodels:\n"
            "  - {model: a, parameters: {weight: 0}}",
            "3:3",
            "must not sum to 0"},
        BadRecipe{
            "NegativeWeightOfAFisher",
            "merge_method: fisher\nmodels:\n"
            "  - {model: a, fisher: f, parameters: {weight: -1}}",
            "3:48",
            "at least 0"},
        BadRecipe{
            "NoBase",
            "merge_method: task_arithmetic\nmodels: [{model: a}]",
            "1:15",
            "task_arithmetic needs base_model"},
        BadRecipe{
            "NoFisher",
            "merge_method: fisher\nmodels: [{model: a}]",
            "2:10",
            "models[0] needs the key fisher"},
        BadRecipe{
            "NoBaseFisher",
            "merge_method: gradient_matching\nbase_model: b\n"
            "models: [{model: a, fisher: f}]",
            "1:15",
            "gradient_matching needs base_fisher"},
        BadRecipe{
            "HeadsWithoutBase",
            "merge_method: linear\nmodels: [{model: a}]\nheads: per_task",
            "3:8",
            "heads: per_task needs base_model"},
        BadRecipe{
            "UnknownHeads",
            "merge_method: linear\nmodels: [{model: a}]\nheads: all",
            "3:8",
            "heads must be merge, per_task or base, not 'all'"},
        BadRecipe{
            "UnknownType",
            "merge_method: linear\nmodels: [{model: a}]\nout_dtype: int8",
            "3:12",
            "not 'int8'"},
        BadRecipe{
            "FisherNormalized",
            "merge_method: fisher\nmodels: [{model: a, fisher: f}]\n"
            "parameters: {normalize: true}",
            "3:25",
            "does not normalize"},
        BadRecipe{
            "NormalizeIsNotABool",
            "merge_method: linear\nmodels: [{model: a}]\n"
            "parameters: {normalize: 2}",
            "3:25",
            "must be true or false"},
        BadRecipe{
            "NegativeDelta",
            "merge_method: linear\nmodels: [{model: a}]\n"
            "parameters: {delta: -1}",
            "3:21",
            "at least 0"},
        BadRecipe{
            "ClampAboveOne",
            "merge_method: linear\nmodels: [{model: a}]\n"
            "parameters: {clamp: 1.5}",
            "3:21",
            "between 0 and 1"},
        BadRecipe{
            "ClampIsZero",
            "merge_method: linear\nmodels: [{model: a}]\n"
            "parameters: {clamp: 0}",
            "3:21",
            "greater than 0"},
        BadRecipe{
            "FloorIsZero",
            "merge_method: linear\nmodels: [{model: a}]\n"
            "parameters: {floor: 0}",
            "3:21",
            "greater than 0"},
        BadRecipe{
            "NoExamples",
            "merge_method: fisher\nmodels:\n"
            "  - {model: a, fisher: f, num_examples: 0}",
            "3:41",
            "greater than 0"},
        BadRecipe{
            "DensityAboveOne",
            "merge_method: ties\nbase_model: b\nmodels:\n"
            "  - {model: a, parameters: {density: [0.5, 2]}}",
            "4:44",
            "between 0 and 1"},
        BadRecipe{
            "NotOneModel",
            "merge_method: slerp\nbase_model: b\nmodels: [{model: a}, {model: "
            "c}]",
            "3:9",
            "takes one model in addition to the base, not 2"},
        BadRecipe{
            "OfTheMergeNotOfAModel",
            "merge_method: ties\nbase_model: b\n"
            "models: [{model: a, parameters: {lambda: 1}}]",
            "3:42",
            "a parameter of the merge"},
        BadRecipe{
            "UnequalLayers",
            "merge_method: linear\nslices:\n  - sources:\n"
            "      - {model: a, layer_range: [0, 2]}\n"
            "      - {model: b, layer_range: [0, 3]}",
            "4:7",
            "the same number of layers"},
        BadRecipe{
            "OtherTokenizer",
            "merge_method: linear\nmodels: [{model: a}]\n"
            "tokenizer_source: union",
            "3:19",
            "must be base"},
        BadRecipe{
            "PathIsAList",
            "merge_method: linear\nmodels:\n  - model: []",
            "3:12",
            "models[0].model must be a string"}),
    [](const auto& info) { return info.param.name; });

TEST(Recipe, ListsAllProblemsAtOnce) {
  try {
    parse_recipe(R"(
merge_method: ties
base_modell: b
models:
  - {model: a, wieght: 1, parameters: {density: [0.5, 2, x], lambda: 1}}
  - {model: [], parameters: {weight: {sweep: [1, y, .nan]}}}
  - c
parameters: {epsilon: -1, x: 2, rescale: 3}
heads: all
dtype: int8
)");
    FAIL() << "was accepted";
  } catch (const InputError& error) {
    const std::string message = error.what();
    for (const char* words :
         {"found 15 problems:\n",
          "\n  r.yaml:3:1: unknown key 'base_modell'",
          "\n  r.yaml:2:15: the method ties needs base_model",
          "\n  r.yaml:5:16: unknown key 'wieght' in models[0]",
          "\n  r.yaml:5:55: models[0].parameters.density[1] must be between",
          "\n  r.yaml:5:58: models[0].parameters.density[2] must be a number",
          "\n  r.yaml:5:70: lambda is a parameter of the merge",
          "\n  r.yaml:6:13: models[1].model must be a string",
          "\n  r.yaml:6:50: models[1].parameters.weight.sweep[1] must be",
          "\n  r.yaml:6:53: models[1].parameters.weight.sweep[2] must be",
          "\n  r.yaml:7:5: models[2] must be a mapping, not 'c'",
          "\n  r.yaml:8:23: parameters.epsilon must be",
          "\n  r.yaml:8:27: unknown key 'x' in parameters",
          "\n  r.yaml:8:42: parameters.rescale must be true or false",
          "\n  r.yaml:9:8: heads must be merge",
          "\n  r.yaml:10:8: dtype must be float32"}) {
      EXPECT_NE(message.find(words), std::string::npos)
          << "'" << words << "' is not in: " << message;
    }
  }
}

// The rest is checked as well.
TEST(Recipe, ListsProblemsNextToAnUnknownMethod) {
  try {
    parse_recipe("merge_method: tie\nmodels: [{model: a, x: 1}]\nheads: 1");
    FAIL() << "was accepted";
  } catch (const InputError& error) {
    const std::string message = error.what();
    for (const char* words :
         {"3 problems", "r.yaml:1:15: ", "r.yaml:2:21: ", "r.yaml:3:8: "}) {
      EXPECT_NE(message.find(words), std::string::npos) << message;
    }
  }
}

// Values are interpolated over the layers, or set by rules, as in mergekit.
TEST(Recipe, SettingsDependOnTheTensor) {
  const Recipe recipe = parse_recipe(R"(
merge_method: slerp
base_model: b
models: [{model: a}]
parameters:
  t:
    - {filter: attention, value: [0, 0.5, 1]}
    - {filter: mlp, value: 0.25}
    - value: 0.75
)");
  const Setting& t = recipe.parameters.at("t");
  EXPECT_EQ(t.at("layer.0.attention.w", 0), 0);
  EXPECT_EQ(t.at("layer.1.attention.w", 0.25), 0.25);
  EXPECT_EQ(t.at("layer.1.attention.w", 0.75), 0.75);
  EXPECT_EQ(t.at("layer.2.attention.w", 1), 1);
  EXPECT_EQ(t.at("layer.2.mlp.w", 1), 0.25);
  EXPECT_EQ(t.at("norm", 1), 0.75);
  EXPECT_EQ(
      t.to_yaml(),
      "[{filter: \"attention\", value: [0, 0.5, 1]}, {filter: \"mlp\", value: "
      "0.25}, {value: 0.75}]");
}

TEST(Recipe, ReadsSlices) {
  const Recipe recipe = parse_recipe(R"(
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: a, layer_range: [0, 2], parameters: {weight: 0.5}}
      - {model: base, layer_range: [1, 3]}
    parameters: {lambda: 2}
  - sources: [{model: b+lora, layer_range: [4, 5]}]
)");
  ASSERT_EQ(recipe.slices.size(), 2u);
  ASSERT_EQ(recipe.slices[0].models.size(), 1u); // without the base
  EXPECT_EQ(recipe.slices[0].base_first_layer, 1);
  EXPECT_EQ(recipe.slices[0].models[0].last_layer, 2);
  EXPECT_EQ(value(recipe.slices[0].parameters, "lambda"), 2);
  EXPECT_EQ(recipe.slices[1].models[0].model, "/recipes/b");
  EXPECT_EQ(recipe.slices[1].models[0].adapter, "/recipes/lora");
}

// mergekit's mapping of a model, for paths with + or @ in their names.
TEST(Recipe, TakesModelsAsMappings) {
  const Recipe recipe = parse_recipe(R"(
merge_method: task_arithmetic
base_model: {model: {path: base+x, revision: null}, lora: null}
models:
  - model: {model: {path: ../a+x/}, lora: {path: lora}}
  - model: {model: b+x, override_architecture: null}
  - model: {model: {path: base+x}}
)");
  EXPECT_EQ(recipe.base_model, "/recipes/base+x");
  ASSERT_EQ(recipe.models.size(), 2u); // without the base
  EXPECT_EQ(recipe.models[0].model, "/a+x");
  EXPECT_EQ(recipe.models[0].adapter, "/recipes/lora");
  EXPECT_EQ(recipe.models[1].model, "/recipes/b+x");
  EXPECT_EQ(recipe.models[1].adapter, std::nullopt);
}

TEST(Recipe, FindsModelsInTheHubsCache) {
  const TemporaryFolder cache;
  Environment variables;
  variables.set("HF_HUB_CACHE", cache.path().string());
  const auto snapshot = [&](const char* repository, const char* commit) {
    const auto path = cache / repository / "snapshots" / commit;
    std::filesystem::create_directories(path);
    write_file(path / "config.json", "{}");
    write_file(path / "model.safetensors", "");
    return path;
  };
  const auto a = snapshot("models--org--a", "c0ffee");
  const auto lora = snapshot("models--me--lora", "decade");
  const Recipe recipe = parse_recipe(R"(
merge_method: linear
models:
  - model: org/a@c0ffee
  - model: org/a@c0ffee+me/lora@decade
  - model: {model: {path: org/a, revision: c0ffee}}
    adapter: me/lora@decade
)");
  EXPECT_EQ(recipe.models[0].model, a);
  for (const size_t i : {1, 2}) {
    EXPECT_EQ(recipe.models[i].model, a);
    EXPECT_EQ(recipe.models[i].adapter, lora);
  }
  expect_error<InputError>(
      [] { parse_recipe("merge_method: linear\nmodels: [{model: org/b}]"); },
      {"r.yaml:2:18: 'org/b' is neither a directory nor a model in the Hub's"});
}

// The values are those of PyYAML 6: yaml.safe_load resolves merge keys so.
TEST(Recipe, ReadsMergeKeys) {
  const Recipe recipe = parse_recipe(R"(
merge_method: ties
base_model: base
models:
  - model: a
    parameters: &first {weight: 0.5, density: 0.25}
  - model: b
    parameters: &second
      weight: 0.75
      <<: *first
  - model: c
    parameters:
      <<: [{density: 0.125}, *second]
  - model: d
    parameters: {<<: *second}
)");
  ASSERT_EQ(recipe.models.size(), 4u);
  const std::vector<std::pair<double, double>> expected = {
      {0.5, 0.25}, {0.75, 0.25}, {0.75, 0.125}, {0.75, 0.25}};
  for (size_t i = 0; i < expected.size(); ++i) {
    const Settings& settings = recipe.models[i].parameters;
    EXPECT_EQ(value(settings, "weight"), expected[i].first) << i;
    EXPECT_EQ(value(settings, "density"), expected[i].second) << i;
  }
}

// mergekit's optional keys are None for a key without a value.
TEST(Recipe, TakesNullForAbsent) {
  const Recipe recipe = parse_recipe(R"(
merge_method: linear
base_model: ~
parameters:
slices: null
dtype: null
out_dtype:
tokenizer_source:
heads:
models:
  - model: a
    parameters:
    adapter:
    fisher: null
    num_examples:
  - {model: b, parameters: {weight: [{filter: null, value: 2}]}}
)");
  EXPECT_EQ(recipe.base_model, std::nullopt);
  EXPECT_TRUE(recipe.parameters.empty());
  EXPECT_EQ(recipe.out_dtype, std::nullopt);
  EXPECT_EQ(recipe.heads, HeadMode::kMerge);
  ASSERT_EQ(recipe.models.size(), 2u);
  EXPECT_EQ(recipe.models[0].adapter, std::nullopt);
  EXPECT_EQ(recipe.models[0].fisher, std::nullopt);
  EXPECT_TRUE(recipe.models[0].parameters.empty());
  EXPECT_EQ(value(recipe.models[1].parameters, "weight"), 2);
  EXPECT_TRUE(parse_recipe(R"(
merge_method: passthrough
models: ~
slices:
  - sources: [{model: a, layer_range: [0, 1]}]
    parameters:
)")
                  .slices[0]
                  .parameters.empty());
}

TEST(Recipe, RefusesSeveralDocuments) {
  EXPECT_THROW(
      parse_recipe("merge_method: linear\n---\nmerge_method: linear"),
      InputError);
  EXPECT_THROW(parse_recipe(""), InputError);
}

} // namespace
} // namespace merganser::test
