#include "merganser/plan/tensor_plan.h"

#include <numeric>

#include "merganser/recipe/methods.h"

namespace merganser {

void plan_average(TensorPlan& tensor) {
  const bool from_base = tensor.method->needs_base;
  tensor.reason = "the base's, without a Fisher";
  for (TensorParameters& parameters : tensor.parameters) {
    TensorParameters average;
    average.weights = parameters.weights;
    const double sum =
        std::accumulate(average.weights.begin(), average.weights.end(), 0.0);
    const bool keeps_base =
        from_base && (parameters.average_buffers == 0 || sum == 0);
    for (double& weight : average.weights) {
      weight = keeps_base ? 0 : weight / sum;
    }
    if (!keeps_base) {
      tensor.reason = "average by weight, without a Fisher";
    }
    parameters = std::move(average);
  }
  tensor.method = &method_of(
      from_base ? MergeFormula::kTaskArithmetic : MergeFormula::kLinear);
}

bool keeps_bytes(const TensorPlan& tensor) {
  const TensorSource& source = tensor.sources.front();
  return tensor.method->weights == WeightRule::kScale &&
      tensor.parameters.size() == 1 && tensor.parameters[0].weights[0] == 1 &&
      tensor.output.dtype == source.tensor.info().dtype &&
      source.update == nullptr;
}

} // namespace merganser
