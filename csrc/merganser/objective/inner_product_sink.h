#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/objective/groups.h"

namespace merganser {

// The span of task vectors tau_t split by group g: the columns tau_tg, which
// equal tau_t on the parameters of group g and are zero elsewhere, at t * G +
// g.
struct Subspace {
  std::vector<at::Tensor> task_vectors; // flat arrays like the arena
  ParameterGroups groups;

  int64_t columns() const {
    return static_cast<int64_t>(task_vectors.size() * groups.names.size());
  }
};

// Accumulates the inner products of every example's gradient with the columns
// of a subspace: for a linear layer <D_i^T A_i, tau_tg>, without a gradient of
// an example in memory. While it exists, the model's forward passes serve this
// object only.
class MERGANSER_API InnerProductSink : public GradientSink {
 public:
  // `model` has its parameters in `arena`. Keeps views of the task vectors.
  InnerProductSink(
      Encoder& model,
      const Arena& arena,
      const Subspace& subspace);
  ~InnerProductSink() override;
  InnerProductSink(const InnerProductSink&) = delete;
  InnerProductSink& operator=(const InnerProductSink&) = delete;

  // Products (B, T * G) of one backward pass over a batch, float64.
  void begin_batch(int64_t examples);
  at::Tensor products() const;

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
  // A parameter's part of every task vector, and its group.
  struct Slot {
    std::vector<at::Tensor> directions;
    int64_t group;
  };
  // Adds sum_c gradient_ic direction_c for gradients (B, C) of a vector.
  void add_vector(const Slot& slot, const at::Tensor& gradient);
  void add(const Slot& slot, size_t task, const at::Tensor& values);

  Encoder model_;
  std::vector<Slot> slots_;
  at::Tensor sums_; // (T, G, B)
};

} // namespace merganser
