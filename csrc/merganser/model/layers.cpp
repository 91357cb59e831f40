#include "merganser/model/layers.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "merganser/ops/ops.h"

namespace merganser {

void FisherSink::add(const at::Tensor& parameter, at::Tensor accumulator) {
  TORCH_CHECK(
      accumulator.sizes() == parameter.sizes(),
      "FisherSink: expected an accumulator of shape ",
      parameter.sizes(),
      ", got ",
      accumulator.sizes());
  accumulators_[parameter.unsafeGetTensorImpl()] = std::move(accumulator);
}

at::Tensor FisherSink::use(const at::Tensor& parameter) {
  const void* key = parameter.unsafeGetTensorImpl();
  TORCH_CHECK(
      used_.insert(key).second,
      "FisherSink: two layers share a parameter of shape ",
      parameter.sizes(),
      "; tied parameters are not supported");
  const auto found = accumulators_.find(key);
  return found == accumulators_.end() ? at::Tensor() : found->second;
}

void FisherSink::begin_forward() {
  used_.clear();
}

namespace layers {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// The Functions below take the parameters as inputs, so that the graph reaches
// back to every layer, but return no gradient for them.

// Accumulator of a parameter's squares; undefined: none. A struct, because
// autograd treats a bare tensor argument as part of the graph, and those must
// be defined.
struct Accumulator {
  at::Tensor squares;
};

struct LinearSquares : public Function<LinearSquares> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight,
      const at::Tensor& bias,
      const Accumulator& weight_sum,
      const Accumulator& bias_sum) {
    at::Tensor output = at::linear(input, weight, bias);
    // Under autocast the product has bfloat16 operands; the backward pass runs
    // without autocast and needs the same ones.
    const auto dtype = output.scalar_type();
    context->save_for_backward({input.to(dtype), weight.to(dtype)});
    context->saved_data["weight_squares"] = weight_sum.squares;
    context->saved_data["bias_squares"] = bias_sum.squares;
    context->saved_data["input_dtype"] = input.scalar_type();
    return output;
  }

  static variable_list backward(
      AutogradContext* context,
      variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& grad = gradients[0];
    at::Tensor weight_squares =
        context->saved_data["weight_squares"].toTensor();
    at::Tensor bias_squares = context->saved_data["bias_squares"].toTensor();
    if (weight_squares.defined()) {
      ops::linear_square_accumulate_(weight_squares, saved[0], grad, 1.0);
    }
    if (bias_squares.defined()) {
      ops::bias_square_accumulate_(bias_squares, grad, 1.0);
    }
    at::Tensor grad_input;
    if (context->needs_input_grad(0)) {
      grad_input = at::matmul(grad, saved[1])
                       .to(context->saved_data["input_dtype"].toScalarType());
    }
    return {grad_input, {}, {}, {}, {}};
  }
};

struct EmbeddingSquares : public Function<EmbeddingSquares> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& indices,
      const at::Tensor& weight,
      const Accumulator& sum,
      int64_t padding_idx) {
    context->save_for_backward({indices});
    context->saved_data["squares"] = sum.squares;
    context->saved_data["padding_idx"] = padding_idx;
    return at::embedding(weight, indices, padding_idx);
  }

  static variable_list backward(
      AutogradContext* context,
      variable_list gradients) {
    const auto saved = context->get_saved_variables();
    at::Tensor squares = context->saved_data["squares"].toTensor();
    if (squares.defined()) {
      ops::embedding_square_accumulate_(
          squares,
          saved[0],
          gradients[0],
          1.0,
          context->saved_data["padding_idx"].toInt());
    }
    return {{}, {}, {}, {}};
  }
};

struct LayerNormSquares : public Function<LayerNormSquares> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight,
      const at::Tensor& bias,
      const Accumulator& weight_sum,
      const Accumulator& bias_sum,
      double eps) {
    auto [output, mean, rstd] =
        at::native_layer_norm(input, weight.sizes(), weight, bias, eps);
    context->save_for_backward({input, weight, bias, mean, rstd});
    context->saved_data["weight_squares"] = weight_sum.squares;
    context->saved_data["bias_squares"] = bias_sum.squares;
    return output;
  }

  static variable_list backward(
      AutogradContext* context,
      variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& [input, weight, bias, mean, rstd] =
        std::tie(saved[0], saved[1], saved[2], saved[3], saved[4]);
    const at::Tensor& grad = gradients[0];
    at::Tensor weight_squares =
        context->saved_data["weight_squares"].toTensor();
    at::Tensor bias_squares = context->saved_data["bias_squares"].toTensor();
    if (weight_squares.defined()) {
      const at::Tensor normalized = (input - mean) * rstd;
      ops::layer_norm_square_accumulate_(weight_squares, normalized, grad, 1.0);
    }
    if (bias_squares.defined()) {
      ops::bias_square_accumulate_(bias_squares, grad, 1.0);
    }
    const at::Tensor grad_input = std::get<0>(at::native_layer_norm_backward(
        grad,
        input,
        weight.sizes(),
        mean,
        rstd,
        weight,
        bias,
        {true, false, false}));
    return {grad_input, {}, {}, {}, {}, {}};
  }
};

} // namespace

at::Tensor linear(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    FisherSink* sink) {
  if (sink == nullptr) {
    return at::linear(input, weight, bias);
  }
  return LinearSquares::apply(
      input,
      weight,
      bias,
      Accumulator{sink->use(weight)},
      Accumulator{sink->use(bias)});
}

at::Tensor embedding(
    const at::Tensor& indices,
    const at::Tensor& weight,
    int64_t padding_idx,
    FisherSink* sink) {
  if (sink == nullptr) {
    // A sparse gradient adds its few rows in place to an existing one; a dense
    // gradient would take three passes over the table.
    const bool sparse = weight.grad().defined();
    return at::embedding(
        weight, indices, padding_idx, /*scale_grad_by_freq=*/false, sparse);
  }
  return EmbeddingSquares::apply(
      indices, weight, Accumulator{sink->use(weight)}, padding_idx);
}

at::Tensor layer_norm(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    double eps,
    FisherSink* sink) {
  if (sink == nullptr) {
    return at::layer_norm(input, weight.sizes(), weight, bias, eps);
  }
  return LayerNormSquares::apply(
      input,
      weight,
      bias,
      Accumulator{sink->use(weight)},
      Accumulator{sink->use(bias)},
      eps);
}

at::Tensor dropout(
    const at::Tensor& input,
    double probability,
    DropoutDraws* draws) {
  if (draws == nullptr || probability == 0) {
    return input;
  }
  return ops::dropout(
      input,
      probability,
      static_cast<int64_t>(draws->seed),
      static_cast<int64_t>(draws->stream++));
}

} // namespace layers
} // namespace merganser
