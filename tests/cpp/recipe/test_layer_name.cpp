#include <gtest/gtest.h>

#include "merganser/recipe/layer_name.h"

namespace merganser::test {
namespace {

TEST(LayerName, FindsTheNumberAfterAStack) {
  EXPECT_EQ(layer_of("bert.encoder.layer.3.output.dense.weight"), 3);
  EXPECT_EQ(layer_of("model.layers.12.mlp.experts.2.up.weight"), 12);
  EXPECT_EQ(layer_of("transformer.h.0.ln_1.weight"), 0);
  EXPECT_EQ(layer_of("bert.embeddings.LayerNorm.weight"), std::nullopt);
  EXPECT_EQ(layer_of("classifier.0.weight"), std::nullopt);
  EXPECT_EQ(layer_of("layer.3a.weight"), std::nullopt);
  EXPECT_EQ(layer_of(""), std::nullopt);
}

TEST(LayerName, KnowsEmbeddings) {
  EXPECT_TRUE(is_before_layers("bert.embeddings.LayerNorm.weight"));
  EXPECT_TRUE(is_before_layers("model.embed_tokens.weight"));
  EXPECT_TRUE(is_before_layers("transformer.wte.weight"));
  EXPECT_FALSE(is_before_layers("embed_out.weight"));
  EXPECT_FALSE(is_before_layers("model.norm.weight"));
}

// The names that save_pretrained keeps of tied tensors.
TEST(LayerName, KnowsTheStoredNameOfTiedTensors) {
  const auto expect = [](const std::vector<std::string>& tied, int stored) {
    EXPECT_EQ(canonical_name(tied), tied[stored]);
  };
  expect({"lm_head.weight", "transformer.wte.weight"}, 1);
  expect({"lm_head.weight", "model.embed_tokens.weight"}, 1);
  expect(
      {"bert.embeddings.word_embeddings.weight",
       "cls.predictions.decoder.weight"},
      0);
  expect({"cls.predictions.decoder.bias", "cls.predictions.bias"}, 1);
  expect(
      {"decoder.embed_tokens.weight",
       "encoder.embed_tokens.weight",
       "lm_head.weight",
       "shared.weight"},
      3);
}

TEST(LayerName, ReplacesIt) {
  EXPECT_EQ(with_layer("a.layer.3.b.4.c", 17), "a.layer.17.b.4.c");
  EXPECT_EQ(with_layer("h.9", 0), "h.0");
  EXPECT_EQ(with_layer("pooler.weight", 1), "pooler.weight");
}

} // namespace
} // namespace merganser::test
