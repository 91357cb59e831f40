// Files of one model that name its tensors differently.

#include <gtest/gtest.h>

#include "merganser/base/error.h"
#include "merganser/plan/name_map.h"
#include "merganser/plan/planner.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

TEST(NameMap, FindsPrefixes) {
  using Names = std::vector<std::string>;
  const Names bare = {"embeddings.w", "encoder.layer.0.w"};
  const Names prefixed = {
      "bert.embeddings.w", "bert.encoder.layer.0.w", "classifier.weight"};
  const NameMap added(bare, prefixed);
  EXPECT_EQ(*added.find("bert.embeddings.w"), "embeddings.w");
  EXPECT_EQ(added.name_of("encoder.layer.0.w"), "bert.encoder.layer.0.w");
  EXPECT_EQ(added.find("classifier.weight"), nullptr);
  EXPECT_EQ(added.find("embeddings.w"), nullptr);
  // Layers that the reference lacks also have the prefix.
  EXPECT_EQ(
      *NameMap(
           {"embeddings.w", "encoder.layer.0.w", "encoder.layer.9.w"}, prefixed)
           .find("bert.encoder.layer.9.w"),
      "encoder.layer.9.w");
  const NameMap removed(prefixed, bare);
  EXPECT_EQ(*removed.find("embeddings.w"), "bert.embeddings.w");
  EXPECT_EQ(removed.name_of("classifier.weight"), "classifier.weight");
  const NameMap same(prefixed, prefixed);
  EXPECT_EQ(*same.find("bert.embeddings.w"), "bert.embeddings.w");
  const NameMap other({"v"}, bare);
  EXPECT_EQ(other.find("embeddings.w"), nullptr);
  EXPECT_EQ(other.name_of("v"), "v");
}

TEST(NameMap, KnowsModulesOfSentenceTransformers) {
  const std::vector<std::string> files = {
      "embeddings.w", "encoder.layer.0.w", "2_Dense/linear.weight"};
  for (const std::string transformer : {"0.model.", "0.auto_model."}) {
    const NameMap memory(
        {transformer + "embeddings.w",
         transformer + "encoder.layer.0.w",
         "2.linear.weight"},
        files);
    EXPECT_EQ(*memory.find("embeddings.w"), transformer + "embeddings.w");
    EXPECT_EQ(*memory.find("2_Dense/linear.weight"), "2.linear.weight");
    EXPECT_EQ(memory.name_of("2.linear.weight"), "2_Dense/linear.weight");
  }
  // A module of that name.
  const NameMap same({"0.model.w"}, {"0.model.w", "w"});
  EXPECT_EQ(*same.find("0.model.w"), "0.model.w");
  EXPECT_EQ(same.find("w"), nullptr);
}

TEST(NameMap, KnowsOlderNames) {
  const NameMap old(
      {"bert.LayerNorm.gamma", "bert.LayerNorm.beta"},
      {"bert.LayerNorm.weight", "bert.LayerNorm.bias"});
  EXPECT_EQ(*old.find("bert.LayerNorm.weight"), "bert.LayerNorm.gamma");
  EXPECT_EQ(old.name_of("bert.LayerNorm.beta"), "bert.LayerNorm.bias");
  const NameMap current({"LayerNorm.weight"}, {"bert.LayerNorm.gamma"});
  EXPECT_EQ(*current.find("bert.LayerNorm.gamma"), "LayerNorm.weight");
  EXPECT_EQ(current.name_of("LayerNorm.weight"), "bert.LayerNorm.gamma");
  EXPECT_NE(
      NameMap({"conv.parametrizations.weight.original0"}, {"conv.weight_g"})
          .find("conv.weight_g"),
      nullptr);
}

TEST(NameMap, KnowsTies) {
  EXPECT_TRUE(may_be_tied(
      "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"));
  EXPECT_TRUE(may_be_tied("shared.weight", "encoder.embed_tokens.weight"));
  EXPECT_TRUE(may_be_tied("lm_head.bias", "lm_head.decoder.bias"));
  EXPECT_FALSE(may_be_tied("lm_head.bias", "cls.decoder.bias"));
  EXPECT_FALSE(may_be_tied("a.weight", "b.weight"));
}

TEST(NameMap, KnowsConstants) {
  const auto is_constant = [](const char* name, std::vector<int64_t> shape) {
    return is_constant_tensor({name, DType::kF32, std::move(shape)});
  };
  EXPECT_TRUE(is_constant("bert.embeddings.position_ids", {1, 8}));
  EXPECT_TRUE(is_constant("model.layers.0.rotary_emb.inv_freq", {4}));
  EXPECT_TRUE(is_constant("h.0.attn.bias", {1, 1, 8, 8}));
  EXPECT_TRUE(is_constant("h.0.crossattention.bias", {1, 1, 8, 8}));
  EXPECT_TRUE(is_constant("h.0.attn.causal_mask", {1, 1, 8, 8}));
  EXPECT_FALSE(is_constant("h.0.attn.bias", {8}));
  EXPECT_FALSE(is_constant("h.0.attn.c_attn.bias", {8}));
}

class NamesOfFiles : public ::testing::Test {
 protected:
  static std::vector<double> read_output(
      const MergePlan& plan,
      const std::string& name,
      size_t source) {
    for (const TensorPlan& tensor : plan.tensors) {
      if (tensor.output.name == name) {
        const StoredTensor& from = tensor.sources.at(source).tensor;
        std::vector<double> values(from.info().numel());
        std::vector<std::byte> data(from.info().bytes());
        from.read(data);
        to_float64(
            from.info().dtype, data.data(), values.data(), values.size());
        return values;
      }
    }
    return {};
  }

  MergePlan plan(const std::string& recipe) const {
    return make_plan(Recipe::parse(recipe, folder_.path(), "recipe.yaml"));
  }

  std::string problems(const std::string& recipe) const {
    try {
      plan(recipe);
    } catch (const InputError& error) {
      return error.what();
    }
    return "nothing";
  }

  static std::vector<std::string> names(const MergePlan& plan) {
    std::vector<std::string> found;
    for (const TensorPlan& tensor : plan.tensors) {
      found.push_back(
          tensor.output.name +
          (tensor.reason.empty() ? "" : ": " + tensor.reason));
    }
    return found;
  }

  using Names = std::vector<std::string>;
  using Values = std::vector<double>;
  TemporaryFolder folder_;
  std::string linear_ =
      "{merge_method: linear, models: [{model: a}, {model: b}]}";
};

TEST_F(NamesOfFiles, TakeABareBase) {
  write_model(
      folder_ / "base",
      {floats("embeddings.LayerNorm.gamma", {1}),
       floats("encoder.layer.0.w", {2}),
       floats("pooler.dense.weight", {7})});
  write_model(
      folder_ / "a",
      {floats("bert.embeddings.LayerNorm.weight", {3}),
       floats("bert.encoder.layer.0.w", {4}),
       floats("classifier.weight", {5})});
  const auto found = plan(
      "{merge_method: task_arithmetic, base_model: base, heads: per_task, "
      "models: [{model: a}]}");
  EXPECT_EQ(
      names(found),
      (Names{
          "embeddings.LayerNorm.gamma",
          "encoder.layer.0.w",
          "pooler.dense.weight: the base's head"}));
  EXPECT_EQ(read_output(found, "embeddings.LayerNorm.gamma", 1), Values{3});
  EXPECT_EQ(found.heads.at(0).tensors.at(0).name, "classifier.weight");
  EXPECT_NE(
      problems("{merge_method: task_arithmetic, base_model: base, "
               "models: [{model: a}]}")
          .find("heads: per_task leaves heads out"),
      std::string::npos);
}

TEST_F(NamesOfFiles, LeaveOutTheHeadOfAPretrainedBase) {
  write_model(
      folder_ / "base",
      {floats("roberta.encoder.layer.0.w", {1}),
       floats("roberta.embeddings.word_embeddings.weight", {1, 2}),
       floats("lm_head.bias", {0, 0}),
       floats("lm_head.decoder.weight", {1, 2})});
  for (const char* name : {"a", "b"}) {
    write_model(
        folder_ / name,
        {floats("roberta.encoder.layer.0.w", {2}),
         floats("roberta.embeddings.word_embeddings.weight", {3, 4}),
         floats("classifier.dense.weight", {5})});
  }
  // A tied table is merged, as it would be if it were stored once.
  const auto found = plan(
      "{merge_method: task_arithmetic, base_model: base, heads: base, "
      "models: [{model: a}, {model: b}]}");
  EXPECT_EQ(
      names(found),
      (Names{
          "roberta.encoder.layer.0.w",
          "roberta.embeddings.word_embeddings.weight",
          "lm_head.bias: the base's head",
          "lm_head.decoder.weight"}));
  EXPECT_EQ(read_output(found, "lm_head.decoder.weight", 1), (Values{3, 4}));
}

TEST_F(NamesOfFiles, MatchTiesThatAreStoredOnceAndTwice) {
  const auto table = [](const char* name, std::vector<double> values) {
    return floats(name, std::move(values));
  };
  const char* input = "model.embed_tokens.weight";
  const char* output = "lm_head.weight";
  write_model(folder_ / "a", {table(input, {1, 2}), table(output, {1, 2})});
  write_model(folder_ / "b", {table(input, {3, 4})});
  auto found = plan(linear_);
  EXPECT_EQ(names(found), (Names{input, output}));
  EXPECT_EQ(read_output(found, output, 1), (Values{3, 4}));
  // The other way round.
  std::filesystem::rename(folder_ / "a", folder_ / "c");
  std::filesystem::rename(folder_ / "b", folder_ / "a");
  std::filesystem::rename(folder_ / "c", folder_ / "b");
  found = plan(linear_);
  EXPECT_EQ(names(found), Names{input});
  // Each under one name.
  write_model(folder_ / "b", {table(output, {5, 6})});
  found = plan(linear_);
  EXPECT_EQ(names(found), Names{input});
  EXPECT_EQ(read_output(found, input, 1), (Values{5, 6}));
  // Two tensors are no tie.
  write_model(folder_ / "b", {table(input, {5, 6}), table(output, {7, 8})});
  EXPECT_NE(problems(linear_).find("has tensors that"), std::string::npos);
  write_model(folder_ / "a", {table(input, {1, 2}), table(output, {1, 3})});
  write_model(folder_ / "b", {table(input, {3, 4})});
  EXPECT_NE(problems(linear_).find("lacks tensors of"), std::string::npos);
}

TEST_F(NamesOfFiles, MatchTiesOfAnyName) {
  write_model(folder_ / "a", {floats("v", {1, 2}), floats("w", {1, 2})});
  write_model(folder_ / "b", {floats("v", {3, 4})});
  EXPECT_EQ(read_output(plan(linear_), "w", 1), (Values{3, 4}));
  // Two new biases or norms are also equal.
  write_model(folder_ / "a", {floats("v", {1, 1}), floats("w", {1, 1})});
  EXPECT_NE(problems(linear_).find("lacks tensors of"), std::string::npos);
}

TEST_F(NamesOfFiles, CopyConstantsThatAModelLacks) {
  const auto mask = [](const char* name) {
    TestTensor tensor = floats(name, {1, 0, 1, 1});
    tensor.info.shape = {1, 1, 2, 2};
    return tensor;
  };
  write_model(
      folder_ / "a",
      {floats("h.0.w", {1}),
       mask("h.0.attn.bias"),
       integers("embeddings.position_ids", {0, 1})});
  write_model(
      folder_ / "b",
      {floats("h.0.w", {3}), floats("rotary_emb.inv_freq", {1})});
  EXPECT_EQ(
      names(plan(linear_)),
      (Names{
          "h.0.w",
          "h.0.attn.bias: a constant that a model lacks",
          "embeddings.position_ids: integers that agree"}));
}

class NamesOfFishers : public NamesOfFiles {
 protected:
  NamesOfFishers() {
    write({{3, 4}, {5, 6}}, {7, 8});
  }

  // Writes models of a table that is tied, an `other` and a frozen tensor.
  void write(
      const std::vector<std::vector<double>>& tables,
      const std::vector<double>& frozen) {
    const char* names[] = {"base", "a", "b"};
    for (size_t m = 0; m < 3; ++m) {
      const std::vector<double> table =
          m == 0 ? std::vector<double>{1, 2} : tables[m - 1];
      write_model(
          folder_ / names[m],
          {floats("wte.weight", table),
           floats("lm_head.weight", table),
           floats("frozen", m == 2 ? frozen : std::vector<double>{7, 8})});
      write_fisher(
          folder_ / (std::string(names[m]) + "_fisher.safetensors"),
          {floats("wte.weight", {1, 2})},
          folder_ / names[m],
          10);
    }
  }

  void add_frozen_to_fisher_of_a() {
    write_fisher(
        folder_ / "a_fisher.safetensors",
        {floats("wte.weight", {1, 2}), floats("frozen", {1, 1})},
        folder_ / "a",
        10);
  }

  static std::string recipe(const std::string& method) {
    return "{merge_method: " + method +
        ", base_model: base, base_fisher: base_fisher.safetensors, "
        "parameters: {weight: 1}, models: [{model: a, fisher: "
        "a_fisher.safetensors}, "
        "{model: b, fisher: b_fisher.safetensors}]}";
  }
};

TEST_F(NamesOfFishers, AreThoseOfTheTwinOrOfNoChange) {
  const auto found = plan(recipe("gradient_matching"));
  EXPECT_EQ(
      names(found),
      (Names{
          "wte.weight",
          "lm_head.weight",
          "frozen: equal in all models, without a Fisher"}));
  EXPECT_EQ(read_output(found, "lm_head.weight", 1), (Values{1, 2}));
}

// Another Fisher has the tensor.
TEST_F(NamesOfFishers, MustExistWhereAModelChanged) {
  write({{3, 4}, {5, 6}}, {7, 9});
  add_frozen_to_fisher_of_a();
  const std::string found = problems(recipe("gradient_matching"));
  EXPECT_NE(found.find("has no Fisher for tensors of"), std::string::npos);
  EXPECT_NE(found.find("'frozen'"), std::string::npos);
  EXPECT_EQ(found.find("lm_head"), std::string::npos);
}

TEST_F(NamesOfFishers, MustExistForEwr) {
  add_frozen_to_fisher_of_a();
  EXPECT_NE(
      problems(recipe("ewr")).find("has no Fisher for tensors of"),
      std::string::npos);
}

TEST_F(NamesOfFishers, MayBeMissingEverywhere) {
  write({{3, 4}, {5, 6}}, {7, 9});
  EXPECT_EQ(
      names(plan(recipe("gradient_matching"))),
      (Names{
          "wte.weight",
          "lm_head.weight",
          "frozen: average by weight, without a Fisher"}));
  EXPECT_EQ(
      names(plan(recipe("ewr"))).back(),
      "frozen: the base's, without a Fisher");
}

TEST(NamesOfLayers, TellLinearWeights) {
  const auto tell = [](const char* name, std::vector<int64_t> shape) {
    const TensorInfo tensor = {name, DType::kF32, std::move(shape)};
    return std::pair(is_linear_weight(tensor), is_spectral(tensor));
  };
  constexpr std::pair kBoth(true, true);
  constexpr std::pair kNone(false, false);
  EXPECT_EQ(tell("bert.encoder.layer.0.output.dense.weight", {4, 8}), kBoth);
  EXPECT_EQ(tell("bert.pooler.dense.weight", {4, 4}), kBoth);
  EXPECT_EQ(tell("classifier.weight", {2, 4}), std::pair(true, false));
  EXPECT_EQ(tell("lm_head.weight", {9, 4}), std::pair(true, false));
  EXPECT_EQ(tell("bert.embeddings.word_embeddings.weight", {9, 4}), kNone);
  EXPECT_EQ(tell("transformer.wte.weight", {9, 4}), kNone);
  EXPECT_EQ(tell("shared.weight", {9, 4}), kNone);
  EXPECT_EQ(
      tell(
          "encoder.block.0.layer.0.SelfAttention.relative_attention_bias."
          "weight",
          {9, 4}),
      kNone);
  EXPECT_EQ(tell("bert.encoder.layer.0.LayerNorm.weight", {4}), kNone);
  EXPECT_EQ(tell("features.0.weight", {4, 3, 2, 2}), kNone);
  EXPECT_EQ(tell("layers.0.mixer.A_log", {4, 4}), kNone);
}

} // namespace
} // namespace merganser::test
