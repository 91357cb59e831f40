#include "merganser/io/lora.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

using nlohmann::json;

const std::string kModel = "base_model.model.";
const json kConfig = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 3}};

// (rows, columns), row by row.
struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<double> values = {};

  double at(int64_t row, int64_t column) const {
    return values[row * columns + column];
  }
};

// Multiples of 1/8, which float32 holds exactly.
Matrix matrix(int64_t rows, int64_t columns, int first) {
  Matrix made{rows, columns};
  for (int64_t i = 0; i < rows * columns; ++i) {
    made.values.push_back(static_cast<double>((first + 5 * i) % 17 - 8) / 8);
  }
  return made;
}

TestTensor stored(const std::string& name, const Matrix& matrix) {
  TestTensor tensor = floats(name, matrix.values);
  tensor.info.shape = {matrix.rows, matrix.columns};
  return tensor;
}

std::vector<double> values(const StoredTensor& tensor) {
  std::vector<std::byte> data(tensor.info().bytes());
  tensor.read(data);
  std::vector<double> values(tensor.info().numel());
  to_float64(tensor.info().dtype, data.data(), values.data(), values.size());
  return values;
}

// scale B A in float64.
Matrix product(double scale, const Matrix& b, const Matrix& a) {
  Matrix sum{b.rows, a.columns, std::vector<double>(b.rows * a.columns)};
  for (int64_t i = 0; i < b.rows; ++i) {
    for (int64_t j = 0; j < a.columns; ++j) {
      for (int64_t k = 0; k < a.rows; ++k) {
        sum.values[i * a.columns + j] += scale * b.at(i, k) * a.at(k, j);
      }
    }
  }
  return sum;
}

Matrix read(const StoredTensor& tensor) {
  const std::vector<int64_t>& shape = tensor.info().shape;
  return {shape.at(0), shape.at(1), values(tensor)};
}

class Lora : public ::testing::Test {
 protected:
  LoraAdapter open(const json& config, const std::vector<TestTensor>& tensors)
      const {
    write_text(folder_ / kAdapterConfig, config.dump());
    write_tensors(folder_ / kAdapterWeights, tensors);
    LoraAdapter adapter(folder_.path());
    adapter.orient(
        [&](const std::string& name) -> const TensorInfo* {
          const auto found =
              std::ranges::find(weights_, name, &TensorInfo::name);
          return found == weights_.end() ? nullptr : &*found;
        },
        model_config_.dump());
    return adapter;
  }

  // A and B of a module, as PEFT names them.
  static std::vector<TestTensor> pair(
      const std::string& module,
      const Matrix& a,
      const Matrix& b) {
    return {
        stored(kModel + module + ".lora_A.weight", a),
        stored(kModel + module + ".lora_B.weight", b)};
  }

  void expect_refusal(
      const json& config,
      const std::vector<TestTensor>& tensors,
      std::initializer_list<std::string> words) const {
    SCOPED_TRACE(config.dump());
    expect_error<InputError>([&] { open(config, tensors); }, words);
  }

  TemporaryFolder folder_;
  json model_config_ = {{"model_type", "bert"}};
  std::vector<TensorInfo> weights_; // of the model
  const Matrix a_ = matrix(2, 3, 1); // (rank, in)
  const Matrix b_ = matrix(4, 2, 2); // (out, rank)
};

TEST_F(Lora, AddsAlphaOverRankTimesBA) {
  const LoraAdapter adapter = open(kConfig, pair("h.0.mlp", a_, b_));
  const LoraUpdate* update = adapter.find("h.0.mlp.weight");
  ASSERT_NE(update, nullptr);
  EXPECT_FALSE(update->transposed);
  const Matrix expected = product(3.0 / 2.0, b_, a_);
  const Matrix added = product(update->scale, read(update->b), read(update->a));
  EXPECT_EQ(added.rows, 4);
  EXPECT_EQ(added.columns, 3);
  EXPECT_EQ(added.values, expected.values);

  EXPECT_EQ(adapter.tensors(), std::vector<std::string>{"h.0.mlp.weight"});
  EXPECT_EQ(adapter.find("h.0.mlp.bias"), nullptr);
  EXPECT_EQ(adapter.find("mlp.weight"), nullptr);
  EXPECT_EQ(adapter.replacement("h.0.mlp.weight"), std::nullopt);
  EXPECT_EQ(adapter.checkpoint().path(), folder_ / "adapter_model.safetensors");
}

TEST_F(Lora, DividesByTheRootOfTheRankWithRsLora) {
  json config = kConfig;
  config["use_rslora"] = true;
  const LoraAdapter adapter = open(config, pair("m", a_, b_));
  EXPECT_DOUBLE_EQ(adapter.find("m.weight")->scale, 3 / std::sqrt(2.0));
  config["use_rslora"] = false;
  EXPECT_DOUBLE_EQ(
      open(config, pair("m", a_, b_)).find("m.weight")->scale, 1.5);
}

// Conv1D of GPT-2 stores W as (in, out); A and B are stored as elsewhere.
TEST_F(Lora, MarksTransposedWeights) {
  json config = kConfig;
  config["fan_in_fan_out"] = true;
  const LoraAdapter adapter = open(config, pair("m", a_, b_));
  const LoraUpdate& update = *adapter.find("m.weight");
  EXPECT_TRUE(update.transposed);
  EXPECT_EQ(read(update.a).values, a_.values);
  EXPECT_EQ(read(update.b).values, b_.values);
}

// rank_pattern and alpha_pattern name a module, or its end after a dot.
TEST_F(Lora, TakesRankAndAlphaOfTheModule) {
  json config = kConfig;
  config["rank_pattern"] = {{"mlp", 3}};
  config["alpha_pattern"] = {{"h.1.mlp", 12}, {"key", 5}};
  const Matrix a3 = matrix(3, 3, 1);
  const Matrix b3 = matrix(4, 3, 2);
  std::vector<TestTensor> tensors;
  for (const auto& [module, a, b] :
       {std::tuple("h.0.mlp", a3, b3),
        std::tuple("h.1.mlp", a3, b3),
        std::tuple("h.0.notmlp", a_, b_),
        std::tuple("key", a_, b_)}) {
    for (const TestTensor& tensor : pair(module, a, b)) {
      tensors.push_back(tensor);
    }
  }
  const LoraAdapter adapter = open(config, tensors);
  EXPECT_DOUBLE_EQ(adapter.find("h.0.mlp.weight")->scale, 3.0 / 3);
  EXPECT_DOUBLE_EQ(adapter.find("h.1.mlp.weight")->scale, 12.0 / 3);
  EXPECT_DOUBLE_EQ(adapter.find("h.0.notmlp.weight")->scale, 3.0 / 2);
  EXPECT_DOUBLE_EQ(adapter.find("key.weight")->scale, 5.0 / 2);
}

TEST_F(Lora, ReplacesModulesToSave) {
  std::vector<TestTensor> tensors = pair("m", a_, b_);
  tensors.push_back(floats(kModel + "classifier.bias", {1, -2}));
  const LoraAdapter adapter = open(kConfig, tensors);
  const auto replacement = adapter.replacement("classifier.bias");
  ASSERT_TRUE(replacement);
  EXPECT_EQ(values(*replacement), (std::vector<double>{1, -2}));
  EXPECT_EQ(adapter.find("classifier.bias"), nullptr);
  std::vector<std::string> names = adapter.tensors();
  std::ranges::sort(names);
  EXPECT_EQ(names, (std::vector<std::string>{"classifier.bias", "m.weight"}));
}

// PEFT writes null for options that are not set.
TEST_F(Lora, TakesNullForAbsent) {
  json config = kConfig;
  config["use_dora"] = nullptr;
  config["use_qalora"] = false;
  config["use_rslora"] = nullptr;
  config["rank_pattern"] = nullptr;
  config["layer_replication"] = nullptr;
  config["target_parameters"] = json::array();
  config["loftq_config"] = json::object();
  config["init_lora_weights"] = nullptr;
  config["bias"] = "none";
  EXPECT_NE(open(config, pair("m", a_, b_)).find("m.weight"), nullptr);
}

TEST_F(Lora, TakesInitializationsThatLeaveTheBase) {
  json config = kConfig;
  for (const json& init :
       {json(true),
        json(false),
        json("gaussian"),
        json("eva"),
        json("orthogonal"),
        json("mica")}) {
    config["init_lora_weights"] = init;
    EXPECT_NE(open(config, pair("m", a_, b_)).find("m.weight"), nullptr)
        << init;
  }
}

// PEFT decides by the module; its fan_in_fan_out is that of the last one.
TEST_F(Lora, DecidesByTheShapesWhichWeightsAreTransposed) {
  weights_ = {
      {"linear.weight", DType::kF32, {4, 3}},
      {"conv.weight", DType::kF32, {3, 4}},
      {"square.weight", DType::kF32, {2, 2}}};
  std::vector<TestTensor> tensors = pair("linear", a_, b_);
  const auto add = [&](const std::vector<TestTensor>& more) {
    tensors.insert(tensors.end(), more.begin(), more.end());
  };
  const Matrix square = matrix(2, 2, 5);
  json config = kConfig;
  // A square weight is as fan_in_fan_out, where the others agree with it.
  add(pair("square", square, square));
  EXPECT_FALSE(open(config, tensors).find("square.weight")->transposed);
  add(pair("conv", a_, b_));
  for (const bool last : {false, true}) {
    config["fan_in_fan_out"] = last;
    expect_refusal(
        config,
        tensors,
        {(folder_ / kAdapterWeights).string(),
         "the shapes do not tell",
         "'square.weight'",
         "with PEFT first"});
  }
  tensors = pair("linear", a_, b_);
  add(pair("conv", a_, b_));
  for (const bool last : {false, true}) {
    config["fan_in_fan_out"] = last;
    const LoraAdapter adapter = open(config, tensors);
    EXPECT_FALSE(adapter.find("linear.weight")->transposed);
    EXPECT_TRUE(adapter.find("conv.weight")->transposed);
  }
}

// Square weights, in the architectures of transformers that have Conv1D.
TEST_F(Lora, DecidesByTheArchitectureWhereWeightsAreSquare) {
  const Matrix square = matrix(2, 2, 5);
  std::vector<TestTensor> tensors;
  for (const char* module : {"h.0.attn.c_proj", "score"}) {
    weights_.push_back({std::string(module) + ".weight", DType::kF32, {2, 2}});
    for (const TestTensor& tensor : pair(module, square, square)) {
      tensors.push_back(tensor);
    }
  }
  const json configs[] = {
      {{"model_type", "gpt2"}},
      {{"model_type", "openai-gpt"}},
      {{"model_type", "imagegpt"}},
      {{"model_type", "decision_transformer"}},
      {{"model_type", "vision-encoder-decoder"},
       {"encoder", {{"model_type", "vit"}}},
       {"decoder", {{"model_type", "gpt2"}}}}};
  for (const json& architecture : configs) {
    model_config_ = architecture;
    for (const bool last : {false, true}) {
      json config = kConfig;
      config["fan_in_fan_out"] = last;
      const LoraAdapter adapter = open(config, tensors);
      EXPECT_TRUE(adapter.find("h.0.attn.c_proj.weight")->transposed);
      EXPECT_FALSE(adapter.find("score.weight")->transposed);
    }
  }
  // GPTBigCode has the names of GPT-2, and Linear.
  model_config_ = {{"model_type", "gpt_bigcode"}};
  EXPECT_FALSE(
      open(kConfig, tensors).find("h.0.attn.c_proj.weight")->transposed);
}

TEST_F(Lora, RefusesDirectoriesWithoutAdapter) {
  expect_error<InputError>(
      [&] { LoraAdapter(folder_.path()); },
      {folder_.path().string(),
       "is not a LoRA adapter",
       "adapter_model.safetensors"});
  write_text(folder_ / "adapter_model.bin", "PK");
  expect_error<InputError>(
      [&] { LoraAdapter(folder_.path()); },
      {folder_.path().string(),
       "has only adapter_model.bin",
       "as safetensors, with save_pretrained of a current PEFT"});
  write_tensors(folder_ / kAdapterWeights, pair("m", a_, b_));
  expect_error<InputError>(
      [&] { LoraAdapter(folder_.path()); },
      {(folder_ / kAdapterConfig).string()});
}

TEST_F(Lora, RefusesOtherConfigurations) {
  const std::vector<TestTensor> tensors = pair("m", a_, b_);
  const std::string file = (folder_ / kAdapterConfig).string();
  const auto with = [](const json& change) {
    json config = kConfig;
    config.update(change);
    return config;
  };
  const std::string other = "is not the configuration of a LoRA adapter";
  expect_refusal("text", tensors, {file, other});
  for (const std::string type : {"IA3", "LOHA", "ADALORA"}) {
    expect_refusal(
        with({{"peft_type", type}}),
        tensors,
        {file,
         "peft_type \"" + type + "\" is not supported",
         "merge the adapter into its model with PEFT first"});
  }
  expect_refusal(with({{"peft_type", nullptr}}), tensors, {file, other});
  for (const char* key :
       {"use_dora", "lora_bias", "use_qalora", "use_later_variant"}) {
    expect_refusal(
        with({{key, true}}), tensors, {file, key, "with PEFT first"});
  }
  const std::pair<const char*, json> others[] = {
      {"layer_replication", {{0, 1}, {0, 1}}},
      {"target_parameters", {"experts.gate_up_proj"}},
      {"trainable_token_indices", {3, 4}},
      {"alora_invocation_tokens", {5}},
      {"kasa_config", {{"beta", 0.1}}},
      {"monteclora_config", {{"num_samples", 8}}},
      {"use_bdlora", {{"nblocks", 2}}},
      {"arrow_config", {{"top_k", 3}}},
      {"later_config", {{"scale", 2}}},
      {"megatron_config", {{"hidden_size", 8}}}};
  for (const auto& [key, value] : others) {
    expect_refusal(
        with({{key, value}}), tensors, {file, key, "with PEFT first"});
  }
  // Initializations after which the base is another one.
  for (const char* init :
       {"pissa",
        "pissa_niter_16",
        "olora",
        "OLoRA",
        "corda",
        "loftq",
        "lora_ga",
        "some_later_one"}) {
    expect_refusal(
        with({{"init_lora_weights", init}}),
        tensors,
        {file,
         "init_lora_weights \"" + std::string(init) + "\"",
         "path_initial_model_for_weight_conversion",
         "with PEFT first"});
  }
  expect_refusal(
      with({{"bias", "all"}}), tensors, {file, "biases", "with PEFT first"});
  expect_refusal(with({{"r", "two"}}), tensors, {file, "is damaged"});
  expect_refusal(
      {{"peft_type", "LORA"}, {"r", 2}},
      tensors,
      {file, "is damaged", "lora_alpha"});
  expect_refusal(
      with({{"rank_pattern", {{"h.*.mlp", 2}}}}),
      tensors,
      {file, "'h.*.mlp'", "not a plain name with a number"});
  expect_refusal(
      with({{"alpha_pattern", {{"mlp", "2"}}}}),
      tensors,
      {file, "'mlp'", "not a plain name with a number"});
}

TEST_F(Lora, RefusesOtherTensors) {
  const std::string file = (folder_ / kAdapterWeights).string();
  const std::string a = kModel + "m.lora_A.weight";
  const std::string b = kModel + "m.lora_B.weight";
  expect_refusal(
      kConfig,
      {stored("m.lora_A.weight", a_)},
      {file, "'m.lora_A.weight'", "does not begin with base_model.model."});
  expect_refusal(
      kConfig,
      {integers(kModel + "classifier.bias", {1})},
      {file, "classifier.bias'", "I64"});
  // A or B missing.
  expect_refusal(kConfig, {stored(a, a_)}, {file, "'" + a, "'" + b});
  expect_refusal(kConfig, {stored(b, b_)}, {file, "'" + b, "'" + a});
  // Ranks of A and B that differ; not a matrix.
  expect_refusal(
      kConfig, pair("m", a_, matrix(4, 3, 0)), {file, "'" + a, "'" + b});
  expect_refusal(
      kConfig, {floats(a, {1, 2}), stored(b, b_)}, {file, "'" + a, "'" + b});
  // A convolution.
  TestTensor convolution = stored(a, a_);
  convolution.info.shape = {2, 3, 1, 1};
  expect_refusal(
      kConfig,
      {convolution, stored(b, b_)},
      {file, "'" + a, "updates a convolution", "with PEFT first"});
  // Another rank than the configuration's.
  expect_refusal(
      kConfig,
      pair("m", matrix(3, 3, 0), matrix(4, 3, 0)),
      {file, "'" + a, "rank 3", "adapter_config.json", "2"});
  json config = kConfig;
  config["r"] = 0;
  expect_refusal(
      config,
      pair("m", matrix(0, 3, 0), matrix(4, 0, 0)),
      {file, "'" + a, "rank 0"});
  // Parts of DoRA and of adapters of embeddings.
  for (const char* part : {"lora_magnitude_vector", "lora_embedding_A"}) {
    std::vector<TestTensor> tensors = pair("m", a_, b_);
    tensors.push_back(floats(kModel + "m." + part, {1, 2}));
    expect_refusal(kConfig, tensors, {file, part, "with PEFT first"});
  }
}

} // namespace
} // namespace merganser::test
