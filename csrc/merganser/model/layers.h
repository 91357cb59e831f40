#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "merganser/base/api.h"

// The layers of an encoder, as functions. Each takes an optional
// GradientSink: without one it is the ordinary differentiable function; with
// one its backward pass gives the input's gradient only, and hands the factors
// of the parameters' per-example gradients to the sink instead of computing
// their sum (docs/method.md, section 3).
namespace merganser {

// Receives the gradients of parameters, example by example, as the factors that
// they are products of. The differentiated quantity must be a sum over examples
// (of log p(y_i | x_i)): under a mean, every gradient would be N times too
// small. A sink must outlive the graphs of its forward passes.
class MERGANSER_API GradientSink {
 public:
  virtual ~GradientSink() = default;

  // The parameter's slot, by which the functions below name it; kNoSlot when
  // the sink takes no gradients of it. Each layer calls it once in its forward
  // pass. A second call within one forward pass throws: squares (or any other
  // function) of a parameter used by two layers are not the sum of each
  // layer's.
  int64_t use(const at::Tensor& parameter);
  void begin_forward();
  static constexpr int64_t kNoSlot = -1;

  // The gradients of one parameter for every example i of a batch, from the
  // output's gradient D (B, ..., out): D_i^T A_i of a linear layer's weight
  // with input A (B, ..., in); the sum of D_i's rows of a bias; that of the
  // rows of D_i o X_i of a LayerNorm's weight with the normalized X; of an
  // embedding, the rows of D_i added up by index, except padding_idx.
  virtual void add_linear(
      int64_t slot,
      const at::Tensor& input,
      const at::Tensor& grad) = 0;
  virtual void add_bias(int64_t slot, const at::Tensor& grad) = 0;
  virtual void add_layer_norm(
      int64_t slot,
      const at::Tensor& normalized,
      const at::Tensor& grad) = 0;
  virtual void add_embedding(
      int64_t slot,
      const at::Tensor& indices,
      const at::Tensor& grad,
      int64_t padding_idx) = 0;

 protected:
  // Slots count from 0 in the order of these calls.
  void add_slot(const at::Tensor& parameter);

 private:
  std::unordered_map<const void*, int64_t> slots_;
  std::unordered_set<const void*> used_;
};

// Accumulates the squares of per-example gradients.
class MERGANSER_API FisherSink : public GradientSink {
 public:
  // `parameter` -> accumulator of the same shape (float32 or wider).
  void add(const at::Tensor& parameter, at::Tensor accumulator);

  void add_linear(int64_t slot, const at::Tensor& input, const at::Tensor& grad)
      override;
  void add_bias(int64_t slot, const at::Tensor& grad) override;
  void add_layer_norm(
      int64_t slot,
      const at::Tensor& normalized,
      const at::Tensor& grad) override;
  void add_embedding(
      int64_t slot,
      const at::Tensor& indices,
      const at::Tensor& grad,
      int64_t padding_idx) override;

 private:
  std::vector<at::Tensor> squares_; // by slot
};

// Receives the weight (out, in) and the input (..., in) of a linear layer.
using WatchInputs =
    std::function<void(const at::Tensor& weight, const at::Tensor& input)>;

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
    GradientSink* sink);

// indices (B, L), also for positions and token types.
MERGANSER_API at::Tensor embedding(
    const at::Tensor& indices,
    const at::Tensor& weight,
    int64_t padding_idx,
    GradientSink* sink);

MERGANSER_API at::Tensor layer_norm(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    double eps,
    GradientSink* sink);

// Returns the input itself if draws is null.
MERGANSER_API at::Tensor dropout(
    const at::Tensor& input,
    double probability,
    DropoutDraws* draws);

} // namespace layers
} // namespace merganser
