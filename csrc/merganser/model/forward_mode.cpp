#include "merganser/model/forward_mode.h"

#include <torch/csrc/autograd/forward_grad.h>

namespace merganser {
namespace {

using torch::autograd::ForwardADLevel;

std::mutex& level_mutex() {
  static std::mutex mutex;
  return mutex;
}

} // namespace

ForwardMode::ForwardMode(
    const std::vector<at::Tensor>& parameters,
    const std::vector<at::Tensor>& tangents)
    : lock_(level_mutex()), level_(ForwardADLevel::get_next_idx()) {
  try {
    TORCH_CHECK(
        parameters.size() == tangents.size(),
        "ForwardMode: expected ",
        parameters.size(),
        " tangents, got ",
        tangents.size());
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i]._set_fw_grad(tangents[i], level_, /*is_inplace_op=*/false);
    }
  } catch (...) {
    ForwardADLevel::release_idx(level_);
    throw;
  }
}

ForwardMode::~ForwardMode() {
  ForwardADLevel::release_idx(level_);
}

at::Tensor ForwardMode::tangent(const at::Tensor& output) const {
  return output._fw_grad(level_).detach();
}

} // namespace merganser
