#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "merganser/model/config.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

using Json = nlohmann::json;

EncoderConfig parse(const std::string& json, int64_t num_labels = 0) {
  return EncoderConfig::parse(json, "model/config.json", num_labels);
}

// Defaults of transformers' BertConfig() and RobertaConfig().
TEST(EncoderConfig, AbsentKeysHaveTheDefaultsOfTransformers) {
  const auto bert = parse(R"({"model_type": "bert"})");
  EXPECT_EQ(bert.architecture, Architecture::kBert);
  EXPECT_EQ(bert.vocab_size, 30522);
  EXPECT_EQ(bert.hidden_size, 768);
  EXPECT_EQ(bert.num_hidden_layers, 12);
  EXPECT_EQ(bert.num_attention_heads, 12);
  EXPECT_EQ(bert.intermediate_size, 3072);
  EXPECT_EQ(bert.max_position_embeddings, 512);
  EXPECT_EQ(bert.max_length(), 512);
  EXPECT_EQ(bert.type_vocab_size, 2);
  EXPECT_EQ(bert.pad_token_id, 0);
  EXPECT_EQ(bert.num_labels, 2);
  EXPECT_EQ(bert.layer_norm_eps, 1e-12);
  EXPECT_EQ(bert.hidden_dropout, 0.1);
  EXPECT_EQ(bert.attention_dropout, 0.1);
  EXPECT_EQ(bert.classifier_dropout, 0.1);
  EXPECT_EQ(bert.initializer_range, 0.02);
  EXPECT_EQ(bert.activation, Activation::kGelu);

  const auto roberta = parse(R"({"model_type": "roberta"})");
  EXPECT_EQ(roberta.architecture, Architecture::kRoberta);
  EXPECT_EQ(roberta.vocab_size, 50265);
  EXPECT_EQ(roberta.pad_token_id, 1);
  EXPECT_EQ(roberta.max_length(), 510);
}

TEST(EncoderConfig, ClassifierDropoutFallsBackToHiddenDropout) {
  const std::string begin =
      R"({"model_type": "bert", "hidden_dropout_prob": 0.3)";
  EXPECT_EQ(parse(begin + "}").classifier_dropout, 0.3);
  EXPECT_EQ(
      parse(begin + R"(, "classifier_dropout": null})").classifier_dropout,
      0.3);
  EXPECT_EQ(
      parse(begin + R"(, "classifier_dropout": 0.0})").classifier_dropout, 0);
}

TEST(EncoderConfig, NumberOfLabels) {
  const std::string three =
      R"({"model_type": "bert", "id2label": {"0": "a", "1": "b", "2": "c"})";
  EXPECT_EQ(parse(three + "}").num_labels, 3);
  EXPECT_EQ(parse(three + R"(, "num_labels": 3})").num_labels, 3);
  EXPECT_EQ(parse(three + "}", 5).num_labels, 5);
  EXPECT_EQ(parse(R"({"model_type": "bert", "num_labels": 4})").num_labels, 4);
  test::expect_error<InputError>(
      [&] { parse(three + R"(, "num_labels": 4})"); },
      {"model/config.json", "id2label", "num_labels = 4"});
}

TEST(EncoderConfig, NullPaddingIsAllowedForBertOnly) {
  EXPECT_EQ(
      parse(R"({"model_type": "bert", "pad_token_id": null})").pad_token_id,
      -1);
  test::expect_error<InputError>(
      [] { parse(R"({"model_type": "roberta", "pad_token_id": null})"); },
      {"model/config.json", "pad_token_id"});
}

TEST(EncoderConfig, TextThatIsNotAJsonObject) {
  for (const char* text : {"", "[]", "{\"model_type\":", "\xff"}) {
    test::expect_error<InputError>(
        [&] { parse(text); }, {"model/config.json", "not a JSON object"});
  }
}

TEST(EncoderConfig, SavedConfigKeepsWhatItDoesNotSet) {
  const std::string original = R"({
    "model_type": "bert", "custom": [1, 2], "torch_dtype": "float16",
    "architectures": ["BertForMaskedLM"], "num_labels": 2})";
  const Json saved = Json::parse(parse(original, 3).to_json(original));
  EXPECT_EQ(saved["custom"], Json({1, 2}));
  EXPECT_EQ(saved["torch_dtype"], "float32");
  EXPECT_FALSE(saved.contains("num_labels"));
  EXPECT_EQ(
      saved["architectures"], Json::array({"BertForSequenceClassification"}));
  EXPECT_EQ(
      saved["id2label"],
      Json({{"0", "LABEL_0"}, {"1", "LABEL_1"}, {"2", "LABEL_2"}}));
  EXPECT_EQ(
      saved["label2id"],
      Json({{"LABEL_0", 0}, {"LABEL_1", 1}, {"LABEL_2", 2}}));
  EXPECT_EQ(parse(saved.dump()).num_labels, 3);
}

TEST(EncoderConfig, SavedConfigKeepsLabelNames) {
  const std::string original = R"({"model_type": "roberta", "dtype": "bfloat16",
    "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}})";
  const Json saved = Json::parse(parse(original).to_json(original));
  EXPECT_EQ(saved["id2label"], Json({{"0", "no"}, {"1", "yes"}}));
  EXPECT_EQ(saved["dtype"], "float32");
  EXPECT_FALSE(saved.contains("torch_dtype"));
}

using Names = std::map<std::string, int64_t>;

TEST(EncoderConfig, LabelNames) {
  EXPECT_EQ(
      parse(R"({"model_type": "bert", "id2label": {"0": "no", "1": "yes"},
                "label2id": {"no": 0, "yes": 1, "ja": 1}})")
          .label_names,
      (Names{{"no", 0}, {"yes", 1}, {"ja", 1}}));
  EXPECT_EQ(parse(R"({"model_type": "bert"})").label_names, Names());
  // Names of other labels than the model gets.
  EXPECT_EQ(
      parse(
          R"({"model_type": "bert", "id2label": {"0": "no", "1": "yes"},
              "label2id": {"no": 0, "yes": 1}})",
          3)
          .label_names,
      Names());
  // Contradictions: no class is meant.
  EXPECT_EQ(
      parse(
          R"({"model_type": "bert", "label2id": {"b": 2, "c": 1, "d": 7},
              "id2label": {"0": "a", "1": "a", "2": "b"}})")
          .label_names,
      (Names{{"b", 2}, {"c", 1}}));
}

TEST(EncoderConfig, NamesInLabel2idAlone) {
  const std::string original =
      R"({"model_type": "bert", "label2id": {"no": 1, "yes": 0}})";
  EXPECT_EQ(parse(original).label_names, (Names{{"no", 1}, {"yes", 0}}));
  const Json saved = Json::parse(parse(original).to_json(original));
  EXPECT_EQ(saved["id2label"], Json({{"0", "yes"}, {"1", "no"}}));
  EXPECT_EQ(saved["label2id"], Json({{"yes", 0}, {"no", 1}}));
}

} // namespace
} // namespace merganser
