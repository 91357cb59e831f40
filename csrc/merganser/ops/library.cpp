// Every schema of torch.ops.merganser, in one place. Implementations are
// registered at the foot of the file that defines them; what each op computes
// is described in ops/ops.h.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/stack.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "merganser/ops/library.h"
#include "merganser/ops/ops.h"

TORCH_LIBRARY(merganser, m) {
  m.def(
      "square_accumulate_(Tensor(a!) fisher, Tensor grad, float weight) -> ()");
  m.def(
      "adam_fisher_step_(Tensor(a!)[] params, Tensor[] grads, "
      "Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
      "Tensor(d!)[] fishers, int[] steps, float lr, float beta1, float beta2, "
      "float eps, float weight_decay, float grad_scale, "
      "float fisher_weight) -> ()");
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
  m.def(
      "dropout(Tensor input, float probability, int seed, int stream) "
      "-> Tensor");
  m.def("has_cuda() -> bool", &merganser::ops::has_cuda);
}

namespace {

// Under autograd, an op that changes its arguments records no graph, but
// autograd's version counters see the change. (torch's own fallback looks at
// returned tensors only, and these ops return none.)
void change_in_place(
    const c10::OperatorHandle& op,
    c10::DispatchKeySet keys,
    c10::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  std::vector<at::Tensor> changed;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const c10::AliasInfo* alias = arguments[i].alias_info();
    const c10::IValue& value = torch::jit::peek(*stack, i, arguments.size());
    if (alias == nullptr || !alias->isWrite()) {
      continue;
    }
    if (value.isTensor()) {
      changed.push_back(value.toTensor());
    } else {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        changed.push_back(tensor);
      }
    }
  }
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
  }
  for (const at::Tensor& tensor : changed) {
    torch::autograd::impl::bump_version(tensor);
  }
}

} // namespace

// No op but dropout, which registers its own, has a derivative: backward
// through a result is an error that says so.
TORCH_LIBRARY_IMPL(merganser, Autograd, m) {
  for (const std::string name : merganser::ops::kOpNames) {
    if (name == "dropout") {
      continue;
    }
    m.impl(
        name.c_str(),
        name.ends_with('_')
            ? torch::CppFunction::makeFromBoxedFunction<&change_in_place>()
            : torch::autograd::autogradNotImplementedFallback());
  }
}
