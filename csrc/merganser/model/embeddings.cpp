#include "merganser/model/embeddings.h"

#include <ATen/ATen.h>

namespace merganser::modules {
namespace {

constexpr int64_t kNoPadding = -1;

} // namespace

Embeddings::Embeddings(const EncoderConfig& config)
    : architecture_(config.architecture), dropout_(config.hidden_dropout) {
  const int64_t size = config.hidden_size;
  words_ = register_module(
      "word_embeddings",
      std::make_shared<Embedding>(
          config.vocab_size, size, config.pad_token_id));
  positions_ = register_module(
      "position_embeddings",
      std::make_shared<Embedding>(
          config.max_position_embeddings,
          size,
          architecture_ == Architecture::kRoberta ? config.pad_token_id
                                                  : kNoPadding));
  token_types_ = register_module(
      "token_type_embeddings",
      std::make_shared<Embedding>(config.type_vocab_size, size, kNoPadding));
  norm_ = register_module(
      "LayerNorm", std::make_shared<LayerNorm>(size, config.layer_norm_eps));
}

at::Tensor Embeddings::position_ids(const at::Tensor& input_ids) const {
  if (architecture_ == Architecture::kBert) {
    return at::arange(input_ids.size(1), input_ids.options())
        .expand(input_ids.sizes());
  }
  // fairseq's numbering, which RoBERTa was trained with: tokens that are not
  // padding count from pad + 1, padding has the position pad.
  const int64_t pad = words_->padding_idx;
  const at::Tensor is_token = input_ids.ne(pad).to(at::kLong);
  return is_token.cumsum(1) * is_token + pad;
}

at::Tensor Embeddings::forward(
    const at::Tensor& input_ids,
    const at::Tensor& token_type_ids,
    const Pass& pass) const {
  const at::Tensor types =
      token_type_ids.defined() ? token_type_ids : at::zeros_like(input_ids);
  const at::Tensor sum = words_->forward(input_ids, pass) +
      token_types_->forward(types, pass) +
      positions_->forward(position_ids(input_ids), pass);
  return layers::dropout(norm_->forward(sum, pass), dropout_, pass.draws);
}

} // namespace merganser::modules
