#include "merganser/train/adamw.h"

#include <vector>

#include "merganser/ops/ops.h"

namespace merganser {

AdamW::AdamW(Arena& arena, const TrainOptions& options)
    : exp_avg(arena.zeros()),
      exp_avg_sq(arena.zeros()),
      arena_(arena),
      beta1_(options.beta1),
      beta2_(options.beta2),
      epsilon_(options.epsilon),
      weight_decay_(options.weight_decay) {}

void AdamW::step(
    int64_t step,
    double learning_rate,
    double grad_scale,
    const std::optional<SquareSum>& squares) {
  const int64_t size = arena_.parameters.numel();
  const double square_weight =
      squares ? squares->weight / (grad_scale * grad_scale) : 0;
  auto step_range = [&](int64_t begin, int64_t end, double weight_decay) {
    auto range = [&](const at::Tensor& flat) {
      return flat.narrow(0, begin, end - begin);
    };
    std::vector<at::Tensor> fisher;
    if (squares) {
      fisher = {range(squares->sum)};
    }
    ops::adam_fisher_step_(
        {.params = range(arena_.parameters),
         .grads = range(arena_.gradients),
         .exp_avgs = range(exp_avg),
         .exp_avg_sqs = range(exp_avg_sq),
         .fishers = fisher,
         .steps = step,
         .lr = learning_rate,
         .beta1 = beta1_,
         .beta2 = beta2_,
         .eps = epsilon_,
         .weight_decay = weight_decay,
         .grad_scale = grad_scale,
         .fisher_weight = square_weight});
  };
  step_range(0, arena_.decayed, weight_decay_);
  step_range(arena_.decayed, size, 0);
}

} // namespace merganser
