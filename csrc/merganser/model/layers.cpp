#include "merganser/model/layers.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "merganser/ops/ops.h"

namespace merganser {

void GradientSink::add_slot(const at::Tensor& parameter) {
  slots_.emplace(
      parameter.unsafeGetTensorImpl(), static_cast<int64_t>(slots_.size()));
}

int64_t GradientSink::use(const at::Tensor& parameter) {
  const void* key = parameter.unsafeGetTensorImpl();
  TORCH_CHECK(
      used_.insert(key).second,
      "GradientSink: two layers share a parameter of shape ",
      parameter.sizes(),
      "; tied parameters are not supported");
  const auto found = slots_.find(key);
  return found == slots_.end() ? kNoSlot : found->second;
}

void GradientSink::begin_forward() {
  used_.clear();
}

void FisherSink::add(const at::Tensor& parameter, at::Tensor accumulator) {
  TORCH_CHECK(
      accumulator.sizes() == parameter.sizes(),
      "FisherSink: expected an accumulator of shape ",
      parameter.sizes(),
      ", got ",
      accumulator.sizes());
  add_slot(parameter);
  squares_.push_back(std::move(accumulator));
}

void FisherSink::add_linear(
    int64_t slot,
    const at::Tensor& input,
    const at::Tensor& grad) {
  ops::linear_square_accumulate_(squares_[slot], input, grad, 1.0);
}

void FisherSink::add_bias(int64_t slot, const at::Tensor& grad) {
  ops::bias_square_accumulate_(squares_[slot], grad, 1.0);
}

void FisherSink::add_layer_norm(
    int64_t slot,
    const at::Tensor& normalized,
    const at::Tensor& grad) {
  ops::layer_norm_square_accumulate_(squares_[slot], normalized, grad, 1.0);
}

void FisherSink::add_embedding(
    int64_t slot,
    const at::Tensor& indices,
    const at::Tensor& grad,
    int64_t padding_idx) {
  ops::embedding_square_accumulate_(
      squares_[slot], indices, grad, 1.0, padding_idx);
}

namespace layers {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// The Functions below take the parameters as inputs, so that the graph reaches
// back to every layer, but return no gradient for them.

// A sink and the slots of a layer's parameters in it.
struct Receiver {
  GradientSink* sink = nullptr;
  int64_t weight = GradientSink::kNoSlot;
  int64_t bias = GradientSink::kNoSlot;

  void save(AutogradContext* context) const {
    context->saved_data["sink"] = reinterpret_cast<int64_t>(sink);
    context->saved_data["weight"] = weight;
    context->saved_data["bias"] = bias;
  }

  static Receiver load(AutogradContext* context) {
    const auto number = [&](const char* name) {
      return context->saved_data[name].toInt();
    };
    return {
        reinterpret_cast<GradientSink*>(number("sink")),
        number("weight"),
        number("bias")};
  }

  bool takes_weight() const {
    return weight != GradientSink::kNoSlot;
  }

  void add_bias(const at::Tensor& grad) const {
    if (bias != GradientSink::kNoSlot) {
      sink->add_bias(bias, grad);
    }
  }
};

struct SinkLinear : public Function<SinkLinear> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight,
      const at::Tensor& bias,
      const Receiver& receiver) {
    at::Tensor output = at::linear(input, weight, bias);
    // Autocast gives the product bfloat16 operands; the backward pass runs
    // without autocast and needs the same ones.
    const auto dtype = output.scalar_type();
    context->save_for_backward({input.to(dtype), weight.to(dtype)});
    receiver.save(context);
    context->saved_data["input_dtype"] = input.scalar_type();
    return output;
  }

  static variable_list backward(
      AutogradContext* context,
      variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& grad = gradients[0];
    const Receiver receiver = Receiver::load(context);
    if (receiver.takes_weight()) {
      receiver.sink->add_linear(receiver.weight, saved[0], grad);
    }
    receiver.add_bias(grad);
    at::Tensor grad_input;
    if (context->needs_input_grad(0)) {
      grad_input = at::matmul(grad, saved[1])
                       .to(context->saved_data["input_dtype"].toScalarType());
    }
    return {grad_input, {}, {}, {}};
  }
};

struct SinkEmbedding : public Function<SinkEmbedding> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& indices,
      const at::Tensor& weight,
      const Receiver& receiver,
      int64_t padding_idx) {
    context->save_for_backward({indices});
    receiver.save(context);
    context->saved_data["padding_idx"] = padding_idx;
    return at::embedding(weight, indices, padding_idx);
  }

  static variable_list backward(
      AutogradContext* context,
      variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const Receiver receiver = Receiver::load(context);
    if (receiver.takes_weight()) {
      receiver.sink->add_embedding(
          receiver.weight,
          saved[0],
          gradients[0],
          context->saved_data["padding_idx"].toInt());
    }
    return {{}, {}, {}, {}};
  }
};

struct SinkLayerNorm : public Function<SinkLayerNorm> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight,
      const at::Tensor& bias,
      const Receiver& receiver,
      double eps) {
    auto [output, mean, rstd] =
        at::native_layer_norm(input, weight.sizes(), weight, bias, eps);
    context->save_for_backward({input, weight, bias, mean, rstd});
    receiver.save(context);
    return output;
  }

  static variable_list backward(
      AutogradContext* context,
      variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& [input, weight, bias, mean, rstd] =
        std::tie(saved[0], saved[1], saved[2], saved[3], saved[4]);
    const at::Tensor& grad = gradients[0];
    const Receiver receiver = Receiver::load(context);
    if (receiver.takes_weight()) {
      const at::Tensor normalized = (input - mean) * rstd;
      receiver.sink->add_layer_norm(receiver.weight, normalized, grad);
    }
    receiver.add_bias(grad);
    const at::Tensor grad_input = std::get<0>(at::native_layer_norm_backward(
        grad,
        input,
        weight.sizes(),
        mean,
        rstd,
        weight,
        bias,
        {true, false, false}));
    return {grad_input, {}, {}, {}, {}};
  }
};

} // namespace

at::Tensor linear(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    GradientSink* sink) {
  if (sink == nullptr) {
    return at::linear(input, weight, bias);
  }
  return SinkLinear::apply(
      input, weight, bias, Receiver{sink, sink->use(weight), sink->use(bias)});
}

at::Tensor embedding(
    const at::Tensor& indices,
    const at::Tensor& weight,
    int64_t padding_idx,
    GradientSink* sink) {
  if (sink == nullptr) {
    // A sparse gradient adds its few rows in place to an existing one; a dense
    // gradient would take three passes over the table.
    const bool sparse = weight.grad().defined();
    return at::embedding(
        weight, indices, padding_idx, /*scale_grad_by_freq=*/false, sparse);
  }
  return SinkEmbedding::apply(
      indices,
      weight,
      Receiver{.sink = sink, .weight = sink->use(weight)},
      padding_idx);
}

at::Tensor layer_norm(
    const at::Tensor& input,
    const at::Tensor& weight,
    const at::Tensor& bias,
    double eps,
    GradientSink* sink) {
  if (sink == nullptr) {
    return at::layer_norm(input, weight.sizes(), weight, bias, eps);
  }
  return SinkLayerNorm::apply(
      input,
      weight,
      bias,
      Receiver{sink, sink->use(weight), sink->use(bias)},
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
