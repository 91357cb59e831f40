#include "merganser/model/batch_logits.h"

#include <ATen/ATen.h>

#include "merganser/base/interrupt.h"
#include "merganser/model/autocast.h"

namespace merganser {

at::Tensor batch_logits(Encoder& model, const Batch& batch, bool bfloat16) {
  const at::Device device = model->parameters().front().device();
  const auto tokens = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong)
        .view({batch.size, batch.length})
        .to(device);
  };
  const at::Tensor input_ids = tokens(batch.input_ids);
  const at::Tensor token_types =
      batch.token_types.empty() ? at::Tensor() : tokens(batch.token_types);
  const at::Tensor lengths = at::tensor(batch.lengths, at::kLong).to(device);
  const Autocast autocast(device.type(), bfloat16);
  return model->forward(input_ids, lengths, token_types).to(at::kFloat);
}

void for_each_batch(
    Encoder& model,
    const Dataset& data,
    const std::vector<std::vector<int64_t>>& batches,
    int32_t pad_id,
    bool bfloat16,
    const UseLogits& use) {
  for (const std::vector<int64_t>& indices : batches) {
    check_interrupt();
    const Batch batch = make_batch(data, indices, pad_id);
    use(batch, batch_logits(model, batch, bfloat16));
  }
}

} // namespace merganser
