#include "merganser/train/arena.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace merganser {
namespace {

constexpr int64_t kAlignment = 64 / sizeof(float);

// Hugging Face's rule leaves out biases and LayerNorm weights by name; those
// are an encoder's one-dimensional parameters, and no others are.
bool has_weight_decay(const at::Tensor& parameter) {
  return parameter.dim() >= 2;
}

} // namespace

Arena::Arena(const torch::OrderedDict<std::string, at::Tensor>& model) {
  at::NoGradGuard no_grad;
  int64_t size = 0;
  for (bool decay : {true, false}) {
    for (const auto& item : model) {
      const at::Tensor& tensor = item.value();
      if (has_weight_decay(tensor) != decay) {
        continue;
      }
      entries_.push_back(
          {item.key(), size, tensor.numel(), tensor.sizes().vec()});
      tensors_.push_back(tensor);
      size += (tensor.numel() + kAlignment - 1) / kAlignment * kAlignment;
    }
    if (decay) {
      decayed = size;
    }
  }

  parameters = at::zeros({size}, at::kFloat);
  gradients = zeros();
  for (size_t i = 0; i < tensors_.size(); i++) {
    view(parameters, entries_[i]).copy_(tensors_[i]);
    tensors_[i].mutable_grad() = view(gradients, entries_[i]);
  }
  compute_with(parameters);
}

void Arena::compute_with(const at::Tensor& flat) {
  for (size_t i = 0; i < tensors_.size(); i++) {
    tensors_[i].set_data(view(flat, entries_[i]));
  }
}

at::Tensor Arena::view(const at::Tensor& flat, const Entry& entry) {
  return flat.narrow(0, entry.offset, entry.numel).view(entry.shape);
}

at::Tensor Arena::zeros() const {
  return at::zeros_like(parameters);
}

} // namespace merganser
