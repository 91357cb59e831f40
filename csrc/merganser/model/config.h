#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "merganser/base/api.h"

namespace merganser {

enum class Architecture { kBert, kRoberta };
enum class Activation { kGelu, kGeluTanh, kRelu, kSilu, kTanh };

// The part of a Hugging Face config.json that the encoder understands. Values
// that it does not support (relative positions, decoders, cross-attention,
// other model types, ...) are rejected by name.
struct MERGANSER_API EncoderConfig {
  // Dropout probabilities are less: well within the masks' resolution.
  static constexpr double kDropoutLimit = 0.999;
  static constexpr int64_t kMaxLabels = 1'000'000;

  Architecture architecture = Architecture::kBert;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t intermediate_size = 0;
  int64_t max_position_embeddings = 0;
  int64_t type_vocab_size = 0;
  int64_t pad_token_id = 0; // -1: none
  int64_t num_labels = 2;
  // Class numbers by name, from id2label and label2id; without names that these
  // give to several classes. Empty where the file names other than num_labels
  // classes.
  std::map<std::string, int64_t> label_names;
  double layer_norm_eps = 1e-12;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;
  double classifier_dropout = 0.1;
  double initializer_range = 0.02;
  Activation activation = Activation::kGelu;

  // `source` is the file named in errors. num_labels_override >= 2 replaces
  // the file's (a pre-trained encoder without a head). Keys that are absent
  // have the defaults of transformers' BertConfig and RobertaConfig.
  static EncoderConfig parse(
      const std::string& json,
      const std::string& source,
      int64_t num_labels_override = 0);
  // Parses the config.json of a model directory.
  static EncoderConfig read(
      const std::filesystem::path& folder,
      int64_t num_labels_override = 0);

  // The longest input, special tokens included (RoBERTa's positions start
  // after the padding index).
  int64_t max_length() const;

  // The given config.json with architectures, id2label, label2id and the dtype
  // (float32) set for the saved model; all other keys stay. The file's label
  // names stay if there are num_labels of them.
  std::string to_json(const std::string& original) const;
};

} // namespace merganser
