#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "merganser/fisher/result.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/objective/objective_options.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

// A base, experts and a merge as model directories, data files, Fishers; and
// definitions in float64.
namespace merganser::test {

using NamedTensors = std::map<std::string, at::Tensor>;

class TaskModels {
 public:
  static constexpr int64_t kClasses = 3;

  TaskModels() : config_(EncoderConfig::parse(kConfig, "config.json")) {
    std::filesystem::create_directories(folder_ / "source");
    write_text(folder_ / "source" / "config.json", kConfig);
    write_text(
        folder_ / "source" / "vocab.txt",
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\ne\nf\ng\n");
    for (const auto& [name, seed] : std::map<std::string, uint64_t>{
             {"base", 1}, {"one", 2}, {"two", 3}, {"merged", 4}}) {
      save(name, create(seed));
    }
    write_data("one.jsonl", {"a b c", "d", "e e f g a b", "c c", "b a g"}, 0);
    write_data("two.jsonl", {"g", "f e d c b a", "a d", "b b b b"}, 1);
  }

  std::filesystem::path in(const std::string& name) const {
    return folder_ / name;
  }

  Encoder create(uint64_t seed) const {
    const auto model = std::make_shared<EncoderImpl>(config_);
    model->initialize(seed);
    return model;
  }

  void save(const std::string& name, const Encoder& model) const {
    std::filesystem::create_directories(folder_ / name);
    save_encoder(model, folder_ / "source", folder_ / name);
  }

  // A model of other shapes ("wide", "classes") or with a NaN ("nan").
  void save_bad(const std::string& name) const {
    EncoderConfig config = config_;
    config.intermediate_size += name == "wide" ? 4 : 0;
    config.num_labels += name == "classes" ? 1 : 0;
    const auto model = std::make_shared<EncoderImpl>(config);
    model->initialize(1);
    if (name == "nan") {
      model->named_parameters()["classifier.bias"].detach().fill_(NAN);
    }
    save(name, model);
    std::string text = read_file(in(name) / "config.json");
    if (name == "wide") {
      const std::string key = "\"intermediate_size\": 12";
      text.replace(text.find(key), key.size(), "\"intermediate_size\": 16");
      write_text(in(name) / "config.json", text);
    }
  }

  // Values of |N(0, 1)|, with zeros in every third place.
  FisherResult write_fisher(const std::string& model, int64_t num_examples)
      const {
    const Classifier classifier(folder_ / model);
    FisherResult fisher;
    fisher.estimator = "exact";
    fisher.labels = "model";
    fisher.num_examples = num_examples;
    fisher.num_examples_used = num_examples;
    fisher.model_hash = Checkpoint(folder_ / model).content_hash();
    at::manual_seed(num_examples);
    for (const auto& item : classifier.encoder->named_parameters()) {
      at::Tensor values = at::randn(item.value().sizes()).abs();
      values.view(-1).slice(0, 0, std::nullopt, 3).zero_();
      fisher.diagonal.emplace_back(item.key(), values);
    }
    fisher.save(folder_ / (model + ".safetensors"));
    return fisher;
  }

  void write_data(
      const std::string& name,
      const std::vector<std::string>& texts,
      int64_t label) const {
    std::string lines;
    for (const std::string& text : texts) {
      lines += R"({"text": ")" + text + R"(", "label": )" +
          std::to_string(label++ % kClasses) + "}\n";
    }
    write_text(folder_ / name, lines);
  }

  // Two tasks with weights, and all Fishers.
  ObjectiveOptions options() const {
    ObjectiveOptions options;
    options.base = in("base");
    options.max_length = 12;
    options.batch_size = 2;
    options.tasks = {
        {.expert = in("one"),
         .data = in("one.jsonl"),
         .fisher = {},
         .weight = 1},
        {.expert = in("two"),
         .data = in("two.jsonl"),
         .fisher = {},
         .weight = 0.5}};
    return options;
  }

 private:
  static constexpr const char* kConfig =
      R"({"model_type": "bert", "vocab_size": 12, "hidden_size": 8,
          "num_hidden_layers": 2, "num_attention_heads": 2,
          "intermediate_size": 12, "max_position_embeddings": 12,
          "type_vocab_size": 2, "pad_token_id": 0, "initializer_range": 0.4,
          "id2label": {"0": "x", "1": "y", "2": "z"},
          "label2id": {"x": 0, "y": 1, "z": 2}})";

  TemporaryFolder folder_;
  EncoderConfig config_;
};

// The parameters of a model directory in float64.
inline NamedTensors parameters_of(const std::filesystem::path& folder) {
  NamedTensors result;
  const Classifier classifier(folder);
  for (const auto& item : classifier.encoder->named_parameters()) {
    result[item.key()] = item.value().detach().to(at::kDouble);
  }
  return result;
}

// Logits (K) of one example of data, in float64 and with a graph.
inline at::Tensor logits_of(Encoder& model, const Dataset& data, int64_t i) {
  const at::Tensor ids = at::tensor(data.ids[i], at::kInt).to(at::kLong);
  return model->forward(ids.unsqueeze(0), at::tensor({ids.size(0)}, at::kLong))
      .squeeze(0);
}

// The model in float64, in eval mode.
inline Classifier double_model(const std::filesystem::path& folder) {
  Classifier classifier(folder);
  classifier.encoder->to(at::kDouble);
  classifier.encoder->eval();
  return classifier;
}

// The gradient of the summed negative log-likelihood at a model, from one
// backward pass per example in float64.
inline NamedTensors define_gradient(
    const std::filesystem::path& folder,
    const std::filesystem::path& file) {
  Classifier classifier = double_model(folder);
  const Dataset data = classifier.load(file, 12);
  const auto parameters = classifier.encoder->named_parameters();
  NamedTensors sums;
  for (int64_t i = 0; i < data.size(); ++i) {
    const at::Tensor loss = -at::log_softmax(
        logits_of(classifier.encoder, data, i), 0)[data.labels[i]];
    const auto gradients =
        torch::autograd::grad({loss}, classifier.encoder->parameters());
    for (size_t p = 0; p < gradients.size(); ++p) {
      at::Tensor& sum = sums[parameters[p].key()];
      sum = sum.defined() ? sum + gradients[p] : gradients[p];
    }
  }
  return sums;
}

} // namespace merganser::test
