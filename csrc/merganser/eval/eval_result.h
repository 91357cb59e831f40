#pragma once

#include <cstdint>

namespace merganser {

struct EvalResult {
  int64_t examples = 0;
  double accuracy = 0; // in [0, 1]
  double loss = 0; // mean negative log-likelihood, nats
};

} // namespace merganser
