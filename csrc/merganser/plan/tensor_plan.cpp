#include "merganser/plan/tensor_plan.h"

namespace merganser {

bool keeps_bytes(const TensorPlan& tensor) {
  const TensorSource& source = tensor.sources.front();
  return tensor.method->weights == WeightRule::kScale &&
      tensor.parameters.size() == 1 && tensor.parameters[0].weights[0] == 1 &&
      tensor.output.dtype == source.tensor.info().dtype &&
      source.update == nullptr;
}

} // namespace merganser
