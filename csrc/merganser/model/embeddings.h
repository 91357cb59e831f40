#pragma once

#include "merganser/model/config.h"
#include "merganser/model/modules.h"

namespace merganser::modules {

// The sum of word, position and token type embeddings, normalised:
// (B, L) -> (B, L, C).
struct Embeddings : torch::nn::Module {
  explicit Embeddings(const EncoderConfig& config);

  // token_type_ids may be undefined: all zero.
  at::Tensor forward(
      const at::Tensor& input_ids,
      const at::Tensor& token_type_ids,
      const Pass& pass) const;

 private:
  at::Tensor position_ids(const at::Tensor& input_ids) const;

  Architecture architecture_;
  double dropout_;
  std::shared_ptr<Embedding> words_;
  std::shared_ptr<Embedding> positions_;
  std::shared_ptr<Embedding> token_types_;
  std::shared_ptr<LayerNorm> norm_;
};

} // namespace merganser::modules
