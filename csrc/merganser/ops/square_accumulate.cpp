// fisher += weight * grad^2

#include <ATen/Parallel.h>

#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"

namespace merganser::ops {

void square_accumulate_reference_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight) {
  fisher.add_(grad.to(fisher.scalar_type()).square().mul(weight));
}

void check_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight) {
  constexpr const char* kOp = "square_accumulate_";
  check_accumulator(kOp, "fisher", fisher);
  check_input(kOp, "grad", grad, fisher);
  check_shape(kOp, "grad", grad, fisher.sizes());
  check_weight(kOp, weight);
}

void square_accumulate_cpu(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight) {
  check_square_accumulate_(fisher, grad, weight);
  const at::Tensor input = kernel_input(grad, fisher.scalar_type());
  dispatch_types(fisher, input, [&]<typename T, typename In>() {
    T* const f = fisher.data_ptr<T>();
    const In* const g = input.const_data_ptr<In>();
    const T w = static_cast<T>(weight);
    at::parallel_for(
        0, fisher.numel(), kGrain, [=](int64_t begin, int64_t end) {
          widest([=] {
            for (int64_t i = begin; i < end; ++i) {
              const T x = static_cast<T>(g[i]);
              f[i] += x * x * w;
            }
          });
        });
  });
}

} // namespace merganser::ops
