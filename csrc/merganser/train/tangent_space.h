#pragma once

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"
#include "merganser/train/arena.h"

namespace merganser {

// Training of the first-order model at theta_0, the arena's parameters at
// construction:  f(x; theta_0) + J(x; theta_0) (theta - theta_0).  The model
// computes with theta_0 and its displacement; the optimiser, the proximal term
// and checkpoints see theta in arena.parameters, as in ordinary training.
// Source: Ortiz-Jimenez et al. 2023; docs/method.md, section 5.
class MERGANSER_API TangentSpace {
 public:
  TangentSpace(Arena& arena, Encoder model);

  // Computes the displacement of forward passes from arena.parameters.
  void update();

  // Makes the model an ordinary one at theta.
  void leave();

 private:
  Arena& arena_;
  Encoder model_;
  at::Tensor origin_; // theta_0 (n)
  at::Tensor displacement_; // (n)
};

} // namespace merganser
