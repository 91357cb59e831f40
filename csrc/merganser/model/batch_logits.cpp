#include "merganser/model/batch_logits.h"

#include <ATen/ATen.h>

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

} // namespace merganser
