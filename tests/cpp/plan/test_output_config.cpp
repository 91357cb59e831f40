// The config.json of outputs.

#include <gtest/gtest.h>

#include "merganser/plan/output_config.h"
#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

using nlohmann::json;

class OutputConfig : public ::testing::Test {
 protected:
  json with_dtype(const std::string& config) const {
    write_text(file_, config);
    set_config_dtype(file_, DType::kBF16);
    return json::parse(read_file(file_));
  }

  void check(const std::string& config, const std::vector<std::string>& names)
      const {
    write_text(file_, config);
    std::vector<TensorInfo> tensors;
    for (const std::string& name : names) {
      tensors.push_back({name, DType::kF32, {1}});
    }
    check_single_stack(file_, tensors);
  }

  TemporaryFolder folder_;
  std::filesystem::path file_ = folder_ / "config.json";
};

TEST_F(OutputConfig, NamesTheTypeUnderEveryKey) {
  EXPECT_EQ(with_dtype("{}"), json::parse(R"({"torch_dtype": "bfloat16"})"));
  EXPECT_EQ(
      with_dtype(R"({"dtype": "float32"})"),
      json::parse(R"({"dtype": "bfloat16"})"));
  EXPECT_EQ(
      with_dtype(R"({"dtype": "float32", "torch_dtype": "float16"})"),
      json::parse(R"({"dtype": "bfloat16", "torch_dtype": "bfloat16"})"));
  EXPECT_EQ(
      with_dtype(
          R"({"torch_dtype": "float32", "text_config": {"dtype": "float32"}})"),
      json::parse(
          R"({"torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}})"));
}

TEST_F(OutputConfig, RefusesSlicesOfTwoStacks) {
  check(
      R"({"num_hidden_layers": 2})",
      {"bert.embeddings.w",
       "bert.encoder.layer.0.w",
       "bert.encoder.layer.1.w"});
  const auto refused = [&](const std::string& config,
                           const std::vector<std::string>& names,
                           const std::string& what) {
    expect_error<InputError>([&] { check(config, names); }, {what, "slices"});
  };
  refused(
      R"({"num_layers": 1})",
      {"encoder.block.0.w", "decoder.block.0.w"},
      "'decoder.block.', 'encoder.block.'");
  refused(
      R"({"num_layers": 1, "num_decoder_layers": 1})",
      {},
      "num_decoder_layers");
  refused(R"({"encoder_layers": 1})", {"layers.0.w"}, "encoder_layers");
  refused(
      R"({"text_config": {"num_hidden_layers": 1}})",
      {},
      "num_hidden_layers in text_config");
  refused(R"({"depths": [2, 2]})", {}, "depths");
}

TEST_F(OutputConfig, RefusesOtherLayersUnderTheSameNumbers) {
  const auto check_layers = [&](const std::string& config, int begin, int end) {
    write_text(file_, config);
    RecipeModel model;
    model.first_layer = begin;
    model.last_layer = end;
    check_layer_numbers(file_, {{{model}, {}, 0}});
  };
  const std::string dense = R"({"num_layers": 4, "mlp_only_layers": [1, 3]})";
  check_layers(dense, 0, 4);
  expect_error<InputError>(
      [&] { check_layers(dense, 1, 4); }, {"mlp_only_layers [1,3]", "slices"});
  expect_error<InputError>(
      [&] { check_layers(dense, 0, 3); }, {"mlp_only_layers", "slices"});
  check_layers(R"({"num_layers": 4, "mlp_only_layers": []})", 1, 4);
  check_layers(R"({"num_layers": 4, "no_rope_layers": [1, 1, 0, 1]})", 1, 4);
  check_layers(R"({"num_layers": 4, "layer_sizes": [1, 3]})", 1, 4);
}

TEST_F(OutputConfig, NamesTheNumberOfLayers) {
  RecipeModel model;
  model.first_layer = 1;
  model.last_layer = 4;
  const auto set = [&](const std::string& config) {
    write_text(file_, config);
    set_config_layers(file_, {{{model}, {}, 0}});
    return json::parse(read_file(file_));
  };
  EXPECT_EQ(set(R"({"n_layer": 9})"), json::parse(R"({"n_layer": 3})"));
  // transformers reads num_hidden_layers for every model type.
  EXPECT_EQ(set("{}"), json::parse(R"({"num_hidden_layers": 3})"));
}

} // namespace
} // namespace merganser::test
