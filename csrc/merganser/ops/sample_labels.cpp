// One label per row of probabilities. It depends neither on the batch and its
// order nor on the device and the number of threads. The formula is in
// numeric/label_formula.h.

#include <ATen/core/Tensor.h>

#include <cmath>

#include "merganser/numeric/label_formula.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

at::Tensor sample_labels_reference(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample) {
  const at::Tensor sums = probabilities.to(at::kDouble).cumsum(1);
  const at::Tensor uniform = sums.new_empty({indices.numel(), 1});
  for (int64_t i = 0; i < indices.numel(); ++i) {
    const uint64_t bits = philox_u64(seed, sample, indices[i].item<int64_t>());
    uniform[i].fill_(std::ldexp(static_cast<double>(bits >> 11), -53));
  }
  const at::Tensor target = uniform.mul(sums.narrow(1, -1, 1));
  return sums.le(target).sum(1);
}

void check_sample_labels(
    const at::Tensor& probabilities,
    const at::Tensor& indices) {
  constexpr const char* kOp = "sample_labels";
  TORCH_CHECK(
      probabilities.scalar_type() == at::kFloat ||
          probabilities.scalar_type() == at::kDouble,
      kOp,
      ": probabilities must be float32 or float64, got ",
      dtype_name(probabilities));
  check_dim(kOp, "probabilities", probabilities, 2);
  TORCH_CHECK(
      probabilities.size(1) > 0,
      kOp,
      ": probabilities must have at least one column, got shape ",
      probabilities.sizes());
  check_indices(kOp, "indices", indices, probabilities);
  check_shape(kOp, "indices", indices, {probabilities.size(0)});
}

at::Tensor sample_labels_meta(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t /*seed*/,
    int64_t /*sample*/) {
  check_sample_labels(probabilities, indices);
  return indices.new_empty_symint(indices.sym_sizes());
}

at::Tensor sample_labels_cpu(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample) {
  check_sample_labels(probabilities, indices);
  const at::Tensor p = probabilities.contiguous();
  const at::Tensor index = indices.contiguous();
  const int64_t* const x = index.const_data_ptr<int64_t>();
  const int64_t labels = probabilities.size(1);
  at::Tensor result = index.new_empty(index.sizes());
  int64_t* const y = result.data_ptr<int64_t>();
  const auto draw = [&](const auto* row) {
    for (int64_t i = 0; i < index.numel(); ++i, row += labels) {
      y[i] = draw_label(row, labels, seed, sample, x[i]);
      TORCH_CHECK(
          y[i] >= 0,
          "sample_labels: row ",
          i,
          " of probabilities (example ",
          x[i],
          ") is not a distribution; expected finite entries >= 0 that add up "
          "to "
          "1 within 0.001, got a sum of ",
          p[i].sum().item<double>());
    }
  };
  if (p.scalar_type() == at::kDouble) {
    draw(p.const_data_ptr<double>());
  } else {
    draw(p.const_data_ptr<float>());
  }
  return result;
}

} // namespace merganser::ops
