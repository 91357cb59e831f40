// Values of config.json that give tensors their meaning, by architecture.

#include <gtest/gtest.h>

#include "merganser/plan/compare_configs.h"

namespace merganser::test {
namespace {

using nlohmann::json;

std::vector<ConfigDifference> compare(
    const char* a,
    const char* b,
    bool any_depth = false) {
  return compare_configs(json::parse(a), json::parse(b), any_depth);
}

struct Pair {
  const char *a, *b;
  std::string key; // of a
};

TEST(CompareConfigs, RefusesEveryArchitecturesNames) {
  for (const Pair& pair : std::initializer_list<Pair>{
           {R"({"model_type": "gpt2"})",
            R"({"model_type": "t5"})",
            "model_type"},
           // GPT-2, T5, DistilBERT, BART, Falcon, Mixtral, DeBERTa
           {R"({"n_head": 2})", R"({"n_head": 4})", "n_head"},
           {R"({"n_head": 2})", R"({"num_attention_heads": 4})", "n_head"},
           {R"({"num_heads": 2})", R"({"num_heads": 4})", "num_heads"},
           {R"({"d_kv": 2})", R"({"d_kv": 4})", "d_kv"},
           {R"({"n_heads": 2})", R"({"n_heads": 4})", "n_heads"},
           {R"({"decoder_attention_heads": 2})",
            R"({"decoder_attention_heads": 4})",
            "decoder_attention_heads"},
           {R"({"num_kv_heads": 2})", R"({"num_kv_heads": 1})", "num_kv_heads"},
           {R"({"num_experts_per_tok": 2})",
            R"({"num_experts_per_tok": 1})",
            "num_experts_per_tok"},
           {R"({"position_buckets": 8})",
            R"({"position_buckets": 4})",
            "position_buckets"},
           {R"({"layer_norm_epsilon": 1e-5})",
            R"({"layer_norm_epsilon": 1e-6})",
            "layer_norm_epsilon"},
           {R"({"activation_function": "gelu"})",
            R"({"activation_function": "relu"})",
            "activation_function"},
           {R"({"feed_forward_proj": "relu"})",
            R"({"feed_forward_proj": "gated-gelu"})",
            "feed_forward_proj"},
           // Rotary embeddings, as transformers 4 and 5 write them
           {R"({"rope_theta": 1e4})", R"({"rope_theta": 1e6})", "rope_theta"},
           {R"({"rope_theta": 1e4})",
            R"({"rope_parameters": {"rope_theta": 1e6}})",
            "rope_theta"},
           {R"({"rope_scaling": {"type": "linear", "factor": 2}})",
            R"({"rope_scaling": {"rope_type": "linear", "factor": 4}})",
            "rope_scaling.factor"},
           {R"({"rope_scaling": {"type": "linear", "factor": 2}})",
            R"({"rope_scaling": null})",
            "rope_scaling.type"},
           {R"({"rope_parameters": {"full_attention": {"rope_theta": 1}}})",
            R"({"rope_parameters": {"full_attention": {"rope_theta": 2}}})",
            "rope_parameters.full_attention.rope_theta"},
           {R"({"rotary_pct": 0.25})", R"({"rotary_pct": 0.5})", "rotary_pct"},
           // Models in models
           {R"({"text_config": {"num_attention_heads": 2}})",
            R"({"text_config": {"num_attention_heads": 4}})",
            "text_config.num_attention_heads"},
           {R"({"decoder": {"model_type": "bert", "hidden_act": "gelu"}})",
            R"({"decoder": {"model_type": "bert", "hidden_act": "relu"}})",
            "decoder.hidden_act"},
       }) {
    const auto found = compare(pair.a, pair.b);
    ASSERT_EQ(found.size(), 1) << pair.a << pair.b;
    EXPECT_EQ(found[0].key, pair.key);
    EXPECT_TRUE(found[0].refused) << pair.key;
  }
}

TEST(CompareConfigs, KnowsOneValueByItsNames) {
  for (
      const auto& [a, b] :
      std::initializer_list<std::pair<const char*, const char*>>{
          {R"({"n_head": 2})", R"({"num_attention_heads": 2})"},
          {R"({"rope_theta": 10000})",
           R"({"rope_parameters": {"rope_theta": 1e4,
                                    "rope_type": "default"}})"},
          {R"({"rope_scaling": {"type": "su", "factor": 2}})",
           R"({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}})"},
          {R"({"rope_scaling": {"type": "mrope", "mrope_section": [1]}})",
           R"({"rope_scaling": null})"},
          {R"({"model_type": "gemma3_text", "rope_theta": 1e6})",
           R"({"rope_parameters": {"full_attention":
                {"rope_type": "default", "rope_theta": 1e6}}})"},
          // Not values of the model, or a default in one of them
          {R"({"rope_theta": 1e6})", "{}"},
          {R"({"pad_token_id": 1})", R"({"pad_token_id": null})"},
          {R"({"attention_dropout": 0.1, "embd_pdrop": 0, "use_cache": true})",
           R"({"attention_dropout": 0, "embd_pdrop": 0.1, "use_cache": false})"},
          {R"({"transformers_version": "4", "_name_or_path": "a"})",
           R"({"transformers_version": "5", "_name_or_path": "b"})"},
      }) {
    EXPECT_TRUE(compare(a, b).empty()) << a << b;
  }
}

TEST(CompareConfigs, ListsOtherKeysThatMayChangeTheFunction) {
  for (const char* key : {"sliding_window", "tie_word_embeddings", "new_key"}) {
    const auto found = compare_configs({{key, 1}}, {{key, nullptr}}, false);
    ASSERT_EQ(found.size(), 1) << key;
    EXPECT_EQ(found[0].key, key);
    EXPECT_FALSE(found[0].refused);
  }
}

TEST(CompareConfigs, ListsWhatTrainingsChoose) {
  const auto expect = [](const json& a, const json& b, bool refused) {
    const auto found = compare_configs(a, b, false);
    ASSERT_EQ(found.size(), 1) << a;
    EXPECT_EQ(found[0].refused, refused) << a;
  };
  for (const char* key : {"max_position_embeddings", "n_positions"}) {
    expect({{key, 4096}}, {{key, 8192}}, false);
  }
  const auto padded = [](const char* type, int id) {
    return json{{"model_type", type}, {"pad_token_id", id}};
  };
  expect(padded("llama", 2), padded("llama", 0), false);
  expect(padded("roberta", 1), padded("roberta", 0), true);
  expect(
      {{"text_config", padded("roberta", 1)}},
      {{"text_config", padded("roberta", 0)}},
      true);
  expect({{"pad_token_id", 1}}, {{"pad_token_id", 0}}, true);
}

TEST(CompareConfigs, ListsKeysWithAMeaningThatOneLacks) {
  for (const char* key : {"layer_norm_epsilon", "hidden_act", "head_dim"}) {
    const auto found = compare_configs({{key, 1}}, json::object(), false);
    ASSERT_EQ(found.size(), 1) << key;
    EXPECT_EQ(found[0].key, key);
    EXPECT_EQ(found[0].value, 1);
    EXPECT_TRUE(found[0].other_value.is_discarded());
    EXPECT_FALSE(found[0].refused);
    const auto turned = compare_configs(json::object(), {{key, 1}}, false);
    ASSERT_EQ(turned.size(), 1) << key;
    EXPECT_TRUE(turned[0].value.is_discarded());
    EXPECT_EQ(turned[0].other_value, 1);
  }
  EXPECT_TRUE(compare(R"({"head_dim": null, "new_key": 1})", "{}").empty());
}

TEST(CompareConfigs, TakesAnyDepthForSlices) {
  for (const auto& [a, b] :
       std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"n_layer": 2})", R"({"n_layer": 3})"},
           {R"({"n_layer": 2})", "{}"},
           {R"({"layer_types": ["x"]})", R"({"layer_types": ["x", "x"]})"}}) {
    EXPECT_EQ(compare(a, b).size(), 1) << a;
    EXPECT_TRUE(compare(a, b, /*any_depth=*/true).empty()) << a;
  }
}

} // namespace
} // namespace merganser::test
