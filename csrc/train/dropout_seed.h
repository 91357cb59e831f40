#pragma once

#include <ATen/core/Generator.h>

#include "io/api.h"

namespace merganser {

// Dropout draws from torch's global generator. Reseeding it from (seed, step)
// before every step makes a step's masks independent of what came before, so
// that a resumed run draws the same ones; the generator's own state comes back
// when this object goes.
class MERGANSER_API DropoutSeed {
 public:
  explicit DropoutSeed(uint64_t seed);
  ~DropoutSeed();
  DropoutSeed(const DropoutSeed&) = delete;
  DropoutSeed& operator=(const DropoutSeed&) = delete;

  void begin_step(int64_t step);

 private:
  uint64_t seed_;
  at::Generator generator_;
  at::Tensor saved_;
};

} // namespace merganser
