#include "merganser/model/transformer.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <c10/core/InferenceMode.h>

#include "merganser/model/attention.h"

namespace merganser::modules {
namespace {

at::Tensor activate(const at::Tensor& input, Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(input);
    case Activation::kGeluTanh:
      return at::gelu(input, "tanh");
    case Activation::kRelu:
      return at::relu(input);
    case Activation::kSilu:
      return at::silu(input);
    case Activation::kTanh:
      return at::tanh(input);
  }
  TORCH_INTERNAL_ASSERT(false, "an activation without a formula");
}

// Converts once what autocast would convert for each product that reads it. In
// a graph the products' gradients are to add up in float32, and `watch` is to
// receive the unconverted input.
at::Tensor shared_operand(const at::Tensor& input, const Pass& pass) {
  const auto device = input.device().type();
  if (!c10::InferenceMode::is_enabled() || pass.watch != nullptr ||
      !at::autocast::is_autocast_enabled(device)) {
    return input;
  }
  return input.to(at::autocast::get_autocast_dtype(device));
}

} // namespace

SelfAttention::SelfAttention(const EncoderConfig& config)
    : heads_(config.num_attention_heads), dropout_(config.attention_dropout) {
  const auto add = [&](const char* name) {
    return register_module(
        name, std::make_shared<Linear>(config.hidden_size, config.hidden_size));
  };
  query_ = add("query");
  key_ = add("key");
  value_ = add("value");
}

at::Tensor SelfAttention::forward(
    const at::Tensor& queries,
    const at::Tensor& hidden,
    const Pass& pass) const {
  const at::Tensor input = shared_operand(hidden, pass);
  return layers::attention(
      query_->forward(queries.is_same(hidden) ? input : queries, pass),
      key_->forward(input, pass),
      value_->forward(input, pass),
      pass.mask,
      heads_,
      dropout_,
      pass.draws);
}

Output::Output(int64_t in, const EncoderConfig& config)
    : dropout_(config.hidden_dropout) {
  dense_ = register_module(
      "dense", std::make_shared<Linear>(in, config.hidden_size));
  norm_ = register_module(
      "LayerNorm",
      std::make_shared<LayerNorm>(config.hidden_size, config.layer_norm_eps));
}

at::Tensor Output::forward(
    const at::Tensor& input,
    const at::Tensor& residual,
    const Pass& pass) const {
  const at::Tensor update =
      layers::dropout(dense_->forward(input, pass), dropout_, pass.draws);
  return norm_->forward(residual + update, pass);
}

Attention::Attention(const EncoderConfig& config)
    : self(register_module("self", std::make_shared<SelfAttention>(config))),
      output(register_module(
          "output",
          std::make_shared<Output>(config.hidden_size, config))) {}

Intermediate::Intermediate(const EncoderConfig& config)
    : activation_(config.activation) {
  dense_ = register_module(
      "dense",
      std::make_shared<Linear>(config.hidden_size, config.intermediate_size));
}

at::Tensor Intermediate::forward(const at::Tensor& input, const Pass& pass)
    const {
  return activate(dense_->forward(input, pass), activation_);
}

Layer::Layer(const EncoderConfig& config) {
  attention_ =
      register_module("attention", std::make_shared<Attention>(config));
  intermediate_ =
      register_module("intermediate", std::make_shared<Intermediate>(config));
  output_ = register_module(
      "output", std::make_shared<Output>(config.intermediate_size, config));
}

at::Tensor Layer::forward(
    const at::Tensor& queries,
    const at::Tensor& hidden,
    const Pass& pass) const {
  const at::Tensor attended = attention_->output->forward(
      attention_->self->forward(queries, hidden, pass), queries, pass);
  return output_->forward(
      intermediate_->forward(attended, pass), attended, pass);
}

Stack::Stack(const EncoderConfig& config) {
  auto list = register_module("layer", std::make_shared<torch::nn::Module>());
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(list->register_module(
        std::to_string(i), std::make_shared<Layer>(config)));
  }
}

at::Tensor Stack::forward(at::Tensor hidden, const Pass& pass) const {
  for (size_t i = 0; i + 1 < layers_.size(); ++i) {
    hidden = layers_[i]->forward(hidden, hidden, pass);
  }
  const at::Tensor queries =
      pass.watch == nullptr ? hidden.narrow(1, 0, 1) : hidden;
  return layers_.back()->forward(queries, hidden, pass).select(1, 0);
}

} // namespace merganser::modules
