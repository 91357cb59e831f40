#pragma once

#include <cstdint>
#include <span>

#include "merganser/plan/tensor_plan.h"

namespace merganser {

// DARE and DELLA keep an element of a task vector where a number drawn for it
// is below a chance: the density, or what grows with the element's rank in its
// row.
class Chances {
 public:
  // Of a model (its place in the sources), with the parameters of an output.
  Chances(const TensorPlan& tensor, size_t model, size_t output);

  // Elements [begin, begin + out.size()) get a number in [0, 1) each. It
  // depends on the seed, the tensor's name, the model's place and the
  // element's, on nothing else.
  void draw(int64_t begin, std::span<float> out) const;

  // DELLA's: from density - epsilon for the least magnitude of the row to
  // density + epsilon for the greatest. Never falls with the rank, from 0.
  float of_rank(int64_t rank) const;

 private:
  uint64_t seed_;
  uint64_t stream_;
  double density_;
  double epsilon_;
  int64_t row_;
};

// Elements in a row of the tensor: its last dimensions but the first.
int64_t row_length(const TensorInfo& tensor);

} // namespace merganser
