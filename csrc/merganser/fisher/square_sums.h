#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "merganser/model/encoder.h"
#include "merganser/model/layers.h"

namespace merganser {

// Sums squares of the parameters' gradients over batches and over the
// directions of each example (directions.h): squares of each example's
// gradient, or of the sum of a batch's.
class SquareSums {
 public:
  explicit SquareSums(Encoder& model);
  virtual ~SquareSums() = default;

  // v (B, K), the logits' gradient; the graph is kept unless `last`.
  virtual void add(
      const at::Tensor& logits,
      const at::Tensor& v,
      bool last) = 0;

  // Sums by parameter name, float32.
  const std::vector<std::pair<std::string, at::Tensor>>& sums() const {
    return sums_;
  }

 protected:
  std::vector<at::Tensor> parameters_;
  std::vector<std::pair<std::string, at::Tensor>> sums_;
};

// sum_i g_i^2, accumulated by the backward passes (layers.h). While it exists,
// the model's forward passes serve this object only.
std::unique_ptr<SquareSums> square_examples(Encoder& model);

// sum_b (sum_{i in b} g_i)^2, from plain backward passes.
std::unique_ptr<SquareSums> square_batches(Encoder& model);

} // namespace merganser
