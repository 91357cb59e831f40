#include "merganser/train/online_fisher.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "merganser/ops/ops.h"

namespace merganser {

OnlineFisher::OnlineFisher(const Arena& arena) : sum(arena.zeros()) {}

AdamW::SquareSum OnlineFisher::next_step(int64_t step_examples) {
  examples += step_examples;
  const auto size = static_cast<double>(step_examples);
  return {sum, size * size};
}

void OnlineFisher::add_sampled(
    const Arena& arena,
    const at::Tensor& logits,
    const at::Tensor& indices,
    uint64_t seed,
    int64_t epoch,
    bool keep_graph) {
  const at::Tensor log_probabilities = at::log_softmax(logits, 1);
  at::Tensor labels;
  {
    at::NoGradGuard no_grad;
    labels = ops::sample_labels(
        log_probabilities.exp(), indices, static_cast<int64_t>(seed), epoch);
  }
  log_probabilities.gather(1, labels.unsqueeze(1))
      .sum()
      .backward({}, keep_graph);
  ops::square_accumulate_(sum, arena.gradients, 1.0);
  arena.gradients.zero_();
  examples += indices.numel();
}

FisherResult OnlineFisher::result(const Arena& arena) const {
  FisherResult result;
  result.num_examples_used = examples;
  const at::Tensor mean = sum / static_cast<double>(examples);
  for (const Arena::Entry& entry : arena.entries()) {
    result.diagonal.emplace_back(entry.name, Arena::view(mean, entry));
  }
  return result;
}

} // namespace merganser
