#include <ATen/ops/_assert_async.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "merganser/ops/cuda_launch.h"

namespace merganser::ops {
namespace {

at::Tensor sample_labels_cuda(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample) {
  check_sample_labels(probabilities, indices);
  const c10::cuda::CUDAGuard guard(probabilities.device());
  const at::Tensor p = probabilities.contiguous();
  const at::Tensor index = indices.contiguous();
  at::Tensor labels = at::empty_like(index);
  const auto draw = [&]<typename T>(const T* rows) {
    kernels::launch_sample_labels(
        rows,
        index.const_data_ptr<int64_t>(),
        labels.data_ptr<int64_t>(),
        p.size(0),
        p.size(1),
        seed,
        sample,
        c10::cuda::getCurrentCUDAStream());
  };
  if (p.scalar_type() == at::kDouble) {
    draw(p.const_data_ptr<double>());
  } else {
    draw(p.const_data_ptr<float>());
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  // Checked on the device without waiting for it: a row that is not a
  // distribution stops the program at the next synchronisation.
  at::_assert_async(
      labels.ge(0).all(),
      "sample_labels: a row of probabilities is not a distribution");
  return labels;
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  m.impl("sample_labels", &sample_labels_cuda);
}

} // namespace
} // namespace merganser::ops
