// Every schema of torch.ops.merganser, in one place. Implementations are
// registered at the foot of the file that defines them; what each op computes
// is described in ops/ops.h.

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "ops/library.h"
#include "ops/ops.h"

TORCH_LIBRARY(merganser, m) {
  m.def(
      "square_accumulate_(Tensor(a!) fisher, Tensor grad, float weight) -> ()");
  m.def(
      "adam_fisher_step_(Tensor(a!) param, Tensor grad, Tensor(b!) exp_avg, "
      "Tensor(c!) exp_avg_sq, Tensor(d!)? fisher, float lr, float beta1, "
      "float beta2, float eps, float weight_decay, int step, "
      "float grad_scale, float fisher_weight) -> ()");
  m.def(
      "merge(Tensor? base, Tensor? base_fisher, Tensor[] models, "
      "Tensor[] fishers, float[] weights, float[] scales, float base_scale, "
      "int method, float delta, float clamp, float floor) -> Tensor");
  m.def(
      "linear_square_accumulate_(Tensor(a!) fisher, Tensor input, "
      "Tensor grad_output, float weight) -> ()");
  m.def(
      "bias_square_accumulate_(Tensor(a!) fisher, Tensor grad_output, "
      "float weight) -> ()");
  m.def(
      "embedding_square_accumulate_(Tensor(a!) fisher, Tensor indices, "
      "Tensor grad_output, float weight, int padding_idx) -> ()");
  m.def(
      "layer_norm_square_accumulate_(Tensor(a!) fisher, Tensor normalized, "
      "Tensor grad_output, float weight) -> ()");
  m.def(
      "sample_labels(Tensor probabilities, Tensor indices, int seed, "
      "int sample) -> Tensor");
  m.def("has_cuda() -> bool", &merganser::ops::has_cuda);
}

// No op has a derivative: backward through one is an error that says so, and a
// change in place is seen by autograd's version counters.
TORCH_LIBRARY_IMPL(merganser, Autograd, m) {
  for (const char* name : merganser::ops::kOpNames) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

TORCH_LIBRARY_IMPL(merganser, ADInplaceOrView, m) {
  for (const char* name : merganser::ops::kOpNames) {
    m.impl(
        name, torch::autograd::autogradNotImplementedInplaceOrViewFallback());
  }
}
