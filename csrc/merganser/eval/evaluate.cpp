#include "merganser/eval/evaluate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/eval/predict.h"

namespace merganser {
namespace {

constexpr int64_t kBins = 15;

// `hits`: 1 where the most probable label is right, otherwise 0; float64.
double calibration_error(const at::Tensor& top, const at::Tensor& hits) {
  const at::Tensor bins =
      (top * kBins).ceil().sub(1).clamp(0, kBins - 1).to(at::kLong);
  const at::Tensor gaps = at::bincount(bins, hits - top, kBins);
  return gaps.abs().sum().item<double>() / static_cast<double>(top.size(0));
}

} // namespace

EvalResult score(
    const at::Tensor& log_probabilities,
    const std::vector<int64_t>& labels) {
  const at::Tensor expected = at::tensor(labels, at::kLong);
  const auto [top, found] = log_probabilities.max(1);
  const at::Tensor hits = found.eq(expected).to(at::kDouble);
  EvalResult result;
  result.examples = std::ssize(labels);
  result.accuracy =
      hits.sum().item<double>() / static_cast<double>(result.examples);
  result.loss =
      -log_probabilities.gather(1, expected.unsqueeze(1)).mean().item<double>();
  if (!std::isfinite(result.loss)) {
    throw NonfiniteLoss(fmt::format(
        "the loss is not finite ({}): the model has weights that are not "
        "finite, or logits beyond the range of its type",
        result.loss));
  }
  result.calibration_error = calibration_error(top.exp(), hits);
  return result;
}

EvalResult evaluate(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress) {
  return score(
      predict(model, data, pad_id, batch_size, bfloat16, progress),
      data.labels);
}

} // namespace merganser
