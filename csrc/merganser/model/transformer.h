#pragma once

#include <vector>

#include "merganser/model/config.h"
#include "merganser/model/modules.h"

namespace merganser::modules {

struct SelfAttention : torch::nn::Module {
  explicit SelfAttention(const EncoderConfig& config);

  // queries (B, Q, C) attend to hidden (B, L, C); returns (B, Q, C).
  at::Tensor forward(
      const at::Tensor& queries,
      const at::Tensor& hidden,
      const Pass& pass) const;

 private:
  int64_t heads_;
  double dropout_;
  std::shared_ptr<Linear> query_, key_, value_;
};

// LayerNorm(residual + dropout(dense(input)))
struct Output : torch::nn::Module {
  Output(int64_t in, const EncoderConfig& config);

  at::Tensor forward(
      const at::Tensor& input,
      const at::Tensor& residual,
      const Pass& pass) const;

 private:
  double dropout_;
  std::shared_ptr<Linear> dense_;
  std::shared_ptr<LayerNorm> norm_;
};

struct Attention : torch::nn::Module {
  explicit Attention(const EncoderConfig& config);
  std::shared_ptr<SelfAttention> self;
  std::shared_ptr<Output> output;
};

struct Intermediate : torch::nn::Module {
  explicit Intermediate(const EncoderConfig& config);
  at::Tensor forward(const at::Tensor& input, const Pass& pass) const;

 private:
  Activation activation_;
  std::shared_ptr<Linear> dense_;
};

struct Layer : torch::nn::Module {
  explicit Layer(const EncoderConfig& config);

  // The layer's output at the positions of `queries`, a part of `hidden` or all
  // of it.
  at::Tensor forward(
      const at::Tensor& queries,
      const at::Tensor& hidden,
      const Pass& pass) const;

 private:
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<Intermediate> intermediate_;
  std::shared_ptr<Output> output_;
};

// "encoder" in the checkpoints, its layers in "encoder.layer".
struct Stack : torch::nn::Module {
  explicit Stack(const EncoderConfig& config);

  // (B, L, C) -> (B, C), the first token's output. The classifier uses no
  // other, so the last layer computes no other: it needs the keys and values of
  // all tokens but only one query, which saves 10/12 of that layer's products.
  // Gradients equal those of the whole computation. With `pass.watch`, which
  // receives the inputs of all tokens, the last layer computes all outputs.
  at::Tensor forward(at::Tensor hidden, const Pass& pass) const;

 private:
  std::vector<std::shared_ptr<Layer>> layers_;
};

} // namespace merganser::modules
