#include "merganser/eval/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/model/batch_logits.h"
#include "merganser/model/eval_mode.h"
#include "merganser/text/batching.h"

namespace merganser {

EvalResult evaluate(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  const EvalMode eval_mode(*model);
  EvalResult result;
  int64_t correct = 0;
  const auto add = [&](const Batch& batch, const at::Tensor& logits) {
    const at::Tensor labels =
        at::tensor(batch.labels, at::kLong).to(logits.device());
    correct += logits.argmax(1).eq(labels).sum().item<int64_t>();
    // float64: the sum over a large data set keeps the digits of its terms.
    result.loss += at::cross_entropy_loss(
                       logits.to(at::kDouble), labels, {}, at::Reduction::Sum)
                       .item<double>();
    result.examples += batch.size;
    if (progress) {
      progress(
          result.examples,
          data.size(),
          fmt::format(
              "accuracy {:.1f} %",
              100.0 * static_cast<double>(correct) /
                  static_cast<double>(result.examples)));
    }
  };
  for_each_batch(
      model, data, sorted_batches(data, batch_size), pad_id, bfloat16, add);
  const auto n = static_cast<double>(result.examples);
  result.accuracy = static_cast<double>(correct) / n;
  result.loss /= n;
  if (!std::isfinite(result.loss)) {
    throw Error(fmt::format(
        "the loss is not finite ({}): the model has weights that are not "
        "finite, or logits beyond the range of {}",
        result.loss,
        bfloat16 ? "bfloat16" : "float32"));
  }
  return result;
}

} // namespace merganser
