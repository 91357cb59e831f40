// One label per row of probabilities, the same for the same example whatever
// the batch, its order, the device or the number of threads. The formula is in
// kernels/label_formula.h.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "merganser/numeric/label_formula.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/library.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

at::Tensor sample_labels(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample) {
  static const auto op = find_op("merganser::sample_labels", sample_labels);
  return op.call(probabilities, indices, seed, sample);
}

at::Tensor sample_labels_reference(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample) {
  std::vector<double> uniform;
  for (int64_t i = 0; i < indices.numel(); ++i) {
    const uint64_t bits = philox_u64(seed, sample, indices[i].item<int64_t>());
    uniform.push_back(std::ldexp(static_cast<double>(bits >> 11), -53));
  }
  const at::Tensor sums = probabilities.to(at::kDouble).cumsum(1);
  const at::Tensor target =
      at::tensor(uniform, at::kDouble).unsqueeze(1) * sums.narrow(1, -1, 1);
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

namespace {

at::Tensor sample_labels_meta(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t /*seed*/,
    int64_t /*sample*/) {
  check_sample_labels(probabilities, indices);
  return at::empty_like(indices, at::MemoryFormat::Contiguous);
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
  at::Tensor result = at::empty_like(index);
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
          ") is no distribution: entries must be finite and not negative and "
          "add up to 1 within 0.001, but their sum is ",
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

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("sample_labels", &sample_labels_cpu);
}

TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("sample_labels", &sample_labels_meta);
}

} // namespace
} // namespace merganser::ops
