#include "merganser/model/config.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/model_dir.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

// transformers implements GELU several times, but every variant is x Phi(x) or
// its tanh approximation.
const std::map<std::string, Activation> kActivations = {
    {"gelu", Activation::kGelu},
    {"gelu_python", Activation::kGelu},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu_accurate", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"tanh", Activation::kTanh},
};

// Reads typed values. Absent and null both count as not given.
class Reader {
 public:
  Reader(const std::string& text, std::string source)
      : source_(std::move(source)) {
    json_ = parse_json_or_discard(text);
    if (!json_.is_object()) {
      throw InputError(fmt::format("{}: not a JSON object", source_));
    }
  }

  bool given(const char* key) const {
    return json_.contains(key) && !json_[key].is_null();
  }

  bool has(const char* key) const {
    return json_.contains(key);
  }

  const Json& at(const char* key) const {
    return json_[key];
  }

  int64_t integer(const char* key, int64_t fallback, int64_t min) const {
    if (!given(key)) {
      return fallback;
    }
    const Json& value = json_[key];
    if (!value.is_number_integer() || value.get<int64_t>() < min) {
      refuse(key, fmt::format("integers of at least {}", min));
    }
    return value.get<int64_t>();
  }

  // A number in [0, limit).
  double real(const char* key, double fallback, double limit) const {
    if (!given(key)) {
      return fallback;
    }
    const Json& value = json_[key];
    if (!value.is_number() || !(value.get<double>() >= 0) ||
        !(value.get<double>() < limit)) {
      refuse(key, fmt::format("numbers in [0, {})", limit));
    }
    return value.get<double>();
  }

  std::string text(const char* key, const std::string& fallback) const {
    if (!given(key)) {
      return fallback;
    }
    if (!json_[key].is_string()) {
      refuse(key, "strings");
    }
    return json_[key].get<std::string>();
  }

  [[noreturn]] void refuse(const char* key, const std::string& expected) const {
    throw InputError(fmt::format(
        "{}: {} is {}, but the encoder supports only {}",
        source_,
        key,
        given(key) ? json_text(json_[key]) : "absent",
        expected));
  }

  // Rejects the switches of architectures that are not supported.
  void expect(const char* key, const Json& only) const {
    if (given(key) && json_[key] != only) {
      refuse(key, json_text(only));
    }
  }

 private:
  std::string source_;
  Json json_;
};

int64_t read_num_labels(const Reader& in, int64_t override_value) {
  if (override_value > EncoderConfig::kMaxLabels) {
    throw InputError(fmt::format(
        "num-labels must be at most {}, got {}",
        EncoderConfig::kMaxLabels,
        override_value));
  }
  if (override_value >= 2) {
    return override_value;
  }
  const int64_t labels = in.integer("num_labels", 0, 2);
  if (labels > EncoderConfig::kMaxLabels) {
    in.refuse(
        "num_labels", fmt::format("at most {}", EncoderConfig::kMaxLabels));
  }
  if (!in.given("id2label")) {
    return labels > 0 ? labels : 2;
  }
  const auto names = static_cast<int64_t>(in.at("id2label").size());
  if (!in.at("id2label").is_object() || names < 2 ||
      (labels > 0 && labels != names)) {
    in.refuse(
        "id2label",
        labels > 0 ? fmt::format("num_labels = {} names", labels)
                   : "two or more labels (no regression)");
  }
  return names;
}

// The classes of each name.
std::map<std::string, std::set<int64_t>> classes_of_names(const Reader& in) {
  std::map<std::string, std::set<int64_t>> classes;
  if (in.given("id2label")) {
    for (const auto& [id, name] : in.at("id2label").items()) {
      if (name.is_string()) {
        classes[name.get<std::string>()].insert(
            std::strtoll(id.c_str(), nullptr, 10));
      }
    }
  }
  if (in.given("label2id") && in.at("label2id").is_object()) {
    for (const auto& [name, id] : in.at("label2id").items()) {
      if (id.is_number_integer()) {
        classes[name].insert(id.get<int64_t>());
      }
    }
  }
  return classes;
}

std::map<std::string, int64_t> read_label_names(
    const Reader& in,
    int64_t num_labels) {
  const char* key = in.given("id2label") ? "id2label" : "label2id";
  if (!in.given(key) || static_cast<int64_t>(in.at(key).size()) != num_labels) {
    return {};
  }
  std::map<std::string, int64_t> names;
  for (const auto& [name, classes] : classes_of_names(in)) {
    const int64_t id = *classes.begin();
    if (classes.size() == 1 && id >= 0 && id < num_labels) {
      names[name] = id;
    }
  }
  return names;
}

Architecture read_architecture(const Reader& in) {
  const std::string type = in.text("model_type", "");
  if (type == "bert") {
    return Architecture::kBert;
  }
  if (type == "roberta") {
    return Architecture::kRoberta;
  }
  in.refuse("model_type", "\"bert\" and \"roberta\"");
}

Activation read_activation(const Reader& in) {
  const auto found = kActivations.find(in.text("hidden_act", "gelu"));
  if (found == kActivations.end()) {
    std::string names;
    for (const auto& [name, activation] : kActivations) {
      names += (names.empty() ? "" : ", ") + name;
    }
    in.refuse("hidden_act", names);
  }
  return found->second;
}

void refuse_other_architectures(const Reader& in) {
  in.expect("position_embedding_type", "absolute");
  in.expect("problem_type", "single_label_classification");
  in.expect("is_decoder", false);
  in.expect("is_encoder_decoder", false);
  in.expect("add_cross_attention", false);
  in.expect("chunk_size_feed_forward", 0);
  in.expect("pruned_heads", Json::object());
  in.expect("quantization_config", nullptr);
}

void check_consistent(const EncoderConfig& config, const Reader& in) {
  if (config.hidden_size % config.num_attention_heads != 0) {
    in.refuse(
        "num_attention_heads",
        fmt::format("divisors of hidden_size = {}", config.hidden_size));
  }
  const bool roberta = config.architecture == Architecture::kRoberta;
  if (config.pad_token_id >= config.vocab_size ||
      (roberta && config.pad_token_id < 0)) {
    in.refuse(
        "pad_token_id",
        fmt::format("ids below vocab_size = {}", config.vocab_size));
  }
  if (config.max_length() < 1) {
    in.refuse("max_position_embeddings", "more than pad_token_id + 1");
  }
}

} // namespace

EncoderConfig EncoderConfig::parse(
    const std::string& json,
    const std::string& source,
    int64_t num_labels_override) {
  const Reader in(json, source);
  EncoderConfig config;
  config.architecture = read_architecture(in);
  refuse_other_architectures(in);
  const bool roberta = config.architecture == Architecture::kRoberta;
  config.vocab_size = in.integer("vocab_size", roberta ? 50265 : 30522, 1);
  config.hidden_size = in.integer("hidden_size", 768, 1);
  config.num_hidden_layers = in.integer("num_hidden_layers", 12, 1);
  config.num_attention_heads = in.integer("num_attention_heads", 12, 1);
  config.intermediate_size = in.integer("intermediate_size", 3072, 1);
  config.max_position_embeddings =
      in.integer("max_position_embeddings", 512, 1);
  config.type_vocab_size = in.integer("type_vocab_size", 2, 1);
  const bool null_pad = !in.given("pad_token_id") && in.has("pad_token_id");
  config.pad_token_id =
      null_pad ? -1 : in.integer("pad_token_id", roberta ? 1 : 0, 0);
  config.num_labels = read_num_labels(in, num_labels_override);
  config.label_names = read_label_names(in, config.num_labels);
  config.layer_norm_eps = in.real("layer_norm_eps", 1e-12, 1);
  config.hidden_dropout =
      in.real("hidden_dropout_prob", 0.1, EncoderConfig::kDropoutLimit);
  config.attention_dropout = in.real(
      "attention_probs_dropout_prob", 0.1, EncoderConfig::kDropoutLimit);
  config.classifier_dropout = in.real(
      "classifier_dropout",
      config.hidden_dropout,
      EncoderConfig::kDropoutLimit);
  config.initializer_range = in.real("initializer_range", 0.02, 1e3);
  config.activation = read_activation(in);
  check_consistent(config, in);
  return config;
}

EncoderConfig EncoderConfig::read(
    const std::filesystem::path& folder,
    int64_t num_labels_override) {
  return parse(
      ModelDir(folder).config_text(),
      (folder / "config.json").string(),
      num_labels_override);
}

int64_t EncoderConfig::max_length() const {
  return architecture == Architecture::kRoberta
      ? max_position_embeddings - pad_token_id - 1
      : max_position_embeddings;
}

std::string EncoderConfig::to_json(const std::string& original) const {
  Json json = parse_json(original);
  json["architectures"] = {
      architecture == Architecture::kRoberta
          ? "RobertaForSequenceClassification"
          : "BertForSequenceClassification"};
  const auto labels = static_cast<size_t>(num_labels);
  if (!json.contains("id2label") || json["id2label"].size() != labels) {
    std::vector<std::string> names(labels);
    for (size_t i = 0; i < labels; ++i) {
      names[i] = fmt::format("LABEL_{}", i);
    }
    if (label_names.size() == labels) { // label2id without id2label
      for (const auto& [name, id] : label_names) {
        names[static_cast<size_t>(id)] = name;
      }
    }
    json["id2label"] = Json::object();
    json["label2id"] = Json::object();
    for (size_t i = 0; i < labels; ++i) {
      json["id2label"][std::to_string(i)] = names[i];
      json["label2id"][names[i]] = i;
    }
  }
  // transformers derives it from id2label; a stale value would contradict it.
  json.erase("num_labels");
  // transformers 5 writes "dtype", earlier releases "torch_dtype".
  if (!json.contains("dtype")) {
    json["torch_dtype"] = "float32";
  }
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (json.contains(key)) {
      json[key] = "float32";
    }
  }
  return json_text(json, 2) + "\n";
}

} // namespace merganser
