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

TEST(LayerName, ReplacesIt) {
  EXPECT_EQ(with_layer("a.layer.3.b.4.c", 17), "a.layer.17.b.4.c");
  EXPECT_EQ(with_layer("h.9", 0), "h.0");
  EXPECT_EQ(with_layer("pooler.weight", 1), "pooler.weight");
}

} // namespace
} // namespace merganser::test
