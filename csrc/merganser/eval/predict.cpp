#include "merganser/eval/predict.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <optional>

#include "merganser/model/autocast.h"
#include "merganser/model/batch_logits.h"
#include "merganser/model/eval_mode.h"
#include "merganser/text/batching.h"

namespace merganser {

at::Tensor predict(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress) {
  at::Tensor result =
      at::empty({data.size(), model->config().num_labels}, at::kDouble);
  const at::NoGradGuard no_grad;
  const EvalMode eval_mode(*model);
  // Fused attention, and weights that autocast converts once for all batches. A
  // first-order model's derivatives exist in neither.
  std::optional<c10::InferenceMode> inference;
  std::optional<Autocast> held;
  if (!model->is_linearized()) {
    inference.emplace();
    held.emplace(model->parameters().front().device().type(), bfloat16);
  }
  int64_t done = 0;
  int64_t correct = 0;
  const auto add = [&](const Batch& batch, const at::Tensor& logits) {
    const at::Tensor log_p = at::log_softmax(logits.to(at::kDouble), 1).cpu();
    result.index_copy_(0, at::tensor(batch.indices, at::kLong), log_p);
    done += batch.size;
    if (progress) {
      const at::Tensor labels = at::tensor(batch.labels, at::kLong);
      correct += log_p.argmax(1).eq(labels).sum().item<int64_t>();
      progress(
          done,
          data.size(),
          fmt::format(
              "accuracy {:.1f} %",
              100.0 * static_cast<double>(correct) /
                  static_cast<double>(done)));
    }
  };
  for_each_batch(
      model, data, sorted_batches(data, batch_size), pad_id, bfloat16, add);
  return result;
}

double mean_total_variation(const at::Tensor& p, const at::Tensor& q) {
  return (p - q).abs().sum(1).mean().item<double>() / 2;
}

} // namespace merganser
