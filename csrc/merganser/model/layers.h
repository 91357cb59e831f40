#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "merganser/base/api.h"

// The layers of an encoder, as functions. Each takes an optional
// FisherSink: without one it is the ordinary differentiable function; with one
// its backward pass gives the input's gradient only, and adds the squares of
// the parameters' per-example gradients to the sink instead of computing their
// sum (docs/method.md, section 3).
namespace merganser {

// Accumulates the per-example squared gradients of parameters. The
// differentiated quantity must be a sum over examples (of log p(y_i | x_i)):
// under a mean, every square would be N^2 times too small.
class MERGANSER_API FisherSink {
 public:
  // `parameter` -> accumulator of the same shape (float32 or wider).
  void add(const at::Tensor& parameter, at::Tensor accumulator);

  // The accumulator; an undefined tensor when the parameter has none. Each
  // layer calls it once in its forward pass. A second call within one forward
  // pass throws: the squares of a parameter used by two layers are not the sum
  // of each layer's squares.
  at::Tensor use(const at::Tensor& parameter);
  void begin_forward();

 private:
  std::unordered_map<const void*, at::Tensor> accumulators_;
  std::unordered_set<const void*> used_;
};

// Counts the masks of forward passes: each takes the next stream of `seed`.
struct DropoutDraws {
  uint64_t seed = 0;
  uint64_t stream = 0;
};

namespace layers {

MERGANSER_API at::Tensor linear(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    FisherSink* sink);

// indices (B, L), also for positions and token types.
MERGANSER_API at::Tensor embedding(
    const at::Tensor& indices,
    const at::Tensor& weight,
    int64_t padding_idx,
    FisherSink* sink);

MERGANSER_API at::Tensor layer_norm(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    double eps,
    FisherSink* sink);

// Returns the input itself if draws is null.
MERGANSER_API at::Tensor dropout(
    const at::Tensor& input,
    double probability,
    DropoutDraws* draws);

} // namespace layers
} // namespace merganser
