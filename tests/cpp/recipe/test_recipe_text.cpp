#include "merganser/recipe/recipe_text.h"

#include <gtest/gtest.h>

#include "parse_recipe.h"

namespace merganser::test {
namespace {

TEST(RecipeText, IsARecipeWithTheSameKeys) {
  const Recipe recipe = parse_recipe(R"(
merge_method: gradient_matching
base_model: "../models/a base: 1"
base_fisher: base.safetensors
base_num_examples: 1000.5
models:
  - model: a
    adapter: lora
    fisher: "#a.safetensors"
    num_examples: 250
    parameters: {weight: [0.5, 1], density: 0.5}
  - model: 1e3
    fisher: b.safetensors
parameters: {delta: 1e-9, normalize_fishers: true, lambda: 2, weight: 0.1}
heads: base
dtype: float64
out_dtype: bfloat16
)");
  const std::string text = recipe_text(recipe);
  const Recipe read = parse_recipe(text);
  EXPECT_EQ(recipe_text(read), text);
  EXPECT_EQ(read.method, recipe.method);
  EXPECT_EQ(read.base_model, "/models/a base: 1");
  EXPECT_EQ(read.base_fisher, recipe.base_fisher);
  EXPECT_EQ(read.base_num_examples, 1000.5);
  ASSERT_EQ(read.models.size(), 2u);
  EXPECT_EQ(read.models[0].model, "/recipes/a");
  EXPECT_EQ(read.models[0].adapter, "/recipes/lora");
  EXPECT_EQ(read.models[0].fisher, "/recipes/#a.safetensors");
  EXPECT_EQ(read.models[0].num_examples, 250);
  EXPECT_EQ(read.models[1].model, "/recipes/1e3");
  EXPECT_EQ(
      read.models[0].parameters.at("weight").to_yaml(),
      recipe.models[0].parameters.at("weight").to_yaml());
  EXPECT_EQ(read.parameters.at("delta").to_yaml(), "1e-09");
  EXPECT_EQ(read.heads, HeadMode::kBase);
  EXPECT_TRUE(read.float64);
  EXPECT_EQ(read.out_dtype, DType::kBF16);
  // Parameters of other methods are left out.
  EXPECT_FALSE(read.parameters.contains("lambda"));
  EXPECT_FALSE(read.models[0].parameters.contains("density"));
}

} // namespace
} // namespace merganser::test
