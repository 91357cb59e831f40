#pragma once

#include <cstdint>
#include <span>

#include "merganser/plan/tensor_plan.h"

namespace merganser {

// Random choice of DARE and DELLA: they keep an element of a task vector if a
// number drawn for it is below its chance, which is the density (DARE) or grows
// with the rank of the element in its row (DELLA).
class RandomMask {
 public:
  // `output` selects the parameters.
  RandomMask(const TensorPlan& tensor, size_t model, size_t output);

  // Draws a number in [0, 1) for each of the elements [begin, begin +
  // out.size()). It depends only on the seed, the tensor's name, the model and
  // the element's position.
  void draw(int64_t begin, std::span<float> out) const;

  // Returns DELLA's chance of an element by its rank, from 0: density - epsilon
  // for the smallest magnitude of the row to density + epsilon for the
  // largest. Never falls with the rank.
  float chance(int64_t rank) const;

 private:
  uint64_t seed_;
  uint64_t stream_;
  double density_;
  double epsilon_;
  int64_t row_;
};

// Returns the number of elements in a row, which spans all dimensions but the
// first.
int64_t row_length(const TensorInfo& tensor);

} // namespace merganser
