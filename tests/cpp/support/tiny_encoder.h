#pragma once

#include <ATen/ATen.h>

#include "merganser/model/encoder.h"

namespace merganser::test {

inline constexpr int32_t kTinyPad = 1;

// Two layers, three labels, weights large enough for softmax and GELU to be
// far from linear.
inline Encoder tiny_encoder(
    Architecture architecture,
    Activation activation = Activation::kGelu) {
  EncoderConfig config;
  config.architecture = architecture;
  config.activation = activation;
  config.vocab_size = 13;
  config.hidden_size = 8;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.intermediate_size = 11;
  config.max_position_embeddings = 9;
  config.type_vocab_size = 2;
  config.pad_token_id = kTinyPad;
  config.num_labels = 3;
  config.initializer_range = 0.5;
  const auto model = std::make_shared<EncoderImpl>(config);
  model->initialize(0);
  return model;
}

// Three examples of different lengths: a padded batch.
struct TinyBatch {
  at::Tensor input_ids =
      at::tensor({3, 5, 2, 12, 7, 6, 2, 1, 1, 1, 4, 4, 9, 2, 1}, at::kLong)
          .view({3, 5});
  at::Tensor lengths = at::tensor({5, 2, 4}, at::kLong);
  at::Tensor labels = at::tensor({0, 2, 1}, at::kLong);

  at::Tensor logits(Encoder& model) const {
    return model->forward(input_ids, lengths);
  }
};

} // namespace merganser::test
