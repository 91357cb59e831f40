// Every op under autograd: dropout has a derivative, the others have none.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/stack.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "merganser/ops/library.h"
#include "merganser/ops/ops.h"

namespace merganser::ops {
namespace {

// An in-place op records no graph but bumps the version counters of the tensors
// it mutates. (torch's own fallback only handles returned tensors, and these
// ops return none.)
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

// The derivative is dropout of the gradient: the same mask, computed again.
struct Dropout : public torch::autograd::Function<Dropout> {
  static at::Tensor forward(
      torch::autograd::AutogradContext* context,
      const at::Tensor& input,
      double probability,
      int64_t seed,
      int64_t stream) {
    context->saved_data["probability"] = probability;
    context->saved_data["seed"] = seed;
    context->saved_data["stream"] = stream;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return dropout(input, probability, seed, stream);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::variable_list gradients) {
    const at::Tensor gradient = dropout(
        gradients[0],
        context->saved_data["probability"].toDouble(),
        context->saved_data["seed"].toInt(),
        context->saved_data["stream"].toInt());
    return {gradient, {}, {}, {}};
  }
};

at::Tensor dropout_autograd(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream) {
  return Dropout::apply(input, probability, seed, stream);
}

// Backward through the result of an op without a derivative throws.
TORCH_LIBRARY_IMPL(merganser, Autograd, m) {
  for (const std::string name : kOpNames) {
    if (name == "dropout") {
      m.impl("dropout", &dropout_autograd);
    } else if (name.ends_with('_')) {
      m.impl(
          name.c_str(),
          torch::CppFunction::makeFromBoxedFunction<&change_in_place>());
    } else {
      m.impl(name.c_str(), torch::autograd::autogradNotImplementedFallback());
    }
  }
}

} // namespace
} // namespace merganser::ops
