#include "merganser/fisher/fisher.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "merganser/base/interrupt.h"
#include "merganser/fisher/directions.h"
#include "merganser/fisher/square_sums.h"
#include "merganser/model/batch_logits.h"
#include "merganser/model/eval_mode.h"
#include "merganser/ops/ops.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

// Calls use(v_k, last) for each direction of the estimator (directions.h).
template <typename Use>
void for_each_direction(
    const at::Tensor& logits,
    const Batch& batch,
    const FisherOptions& options,
    const Use& use) {
  const auto to_tensor = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(logits.device());
  };
  if (options.estimator == Estimator::kExact) {
    const auto vectors = exact_directions(logits);
    for (size_t k = 0; k < vectors.size(); ++k) {
      use(vectors[k], k + 1 == vectors.size());
    }
    return;
  }
  if (options.estimator == Estimator::kEmpirical) {
    use(label_direction(logits, to_tensor(batch.labels)), true);
    return;
  }
  const at::Tensor probabilities = at::softmax(logits.detach(), 1);
  const at::Tensor indices = to_tensor(batch.indices);
  for (int64_t s = 0; s < options.samples; ++s) {
    const at::Tensor labels = ops::sample_labels(
        probabilities, indices, static_cast<int64_t>(options.seed), s);
    use(label_direction(logits, labels), s + 1 == options.samples);
  }
}

} // namespace

FisherResult estimate_fisher(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    const FisherOptions& options,
    const ProgressCallback& progress) {
  check_options(options);
  const at::AutoGradMode with_gradients(true);
  const auto subset = draw_subset(data.size(), options.limit, options.seed);
  const auto total = static_cast<int64_t>(subset.size());

  const EvalMode eval_mode(*model);
  const auto squares = options.estimator == Estimator::kMcBatch
      ? square_batches(model)
      : square_examples(model);
  int64_t done = 0;
  for (const auto& indices : sorted_batches(data, options.batch_size, subset)) {
    const Batch batch = make_batch(data, indices, pad_id);
    const at::Tensor logits = batch_logits(model, batch, options.bfloat16);
    for_each_direction(
        logits, batch, options, [&](const at::Tensor& v, bool last) {
          check_interrupt();
          squares->add(logits, v, last);
        });
    done += batch.size;
    if (progress) {
      progress(done, total, "");
    }
  }

  FisherResult result;
  result.estimator = estimator_name(options.estimator);
  result.num_examples = data.size();
  result.num_examples_used = total;
  result.samples = options.samples;
  result.seed = options.seed;
  result.labels = options.estimator == Estimator::kEmpirical ? "data" : "model";
  result.storage = options.storage;
  // Divided once, at the end: a factor on every square would push tiny ones
  // below the range of float32.
  const double count = static_cast<double>(total * options.samples);
  for (const auto& [name, sum] : squares->sums()) {
    result.diagonal.emplace_back(name, sum / count);
  }
  return result;
}

} // namespace merganser
