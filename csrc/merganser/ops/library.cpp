// torch.ops.merganser: every schema, the functions of ops.h that call the ops
// through the dispatcher, and the registration of the CPU and Meta kernels.
// CUDA kernels are registered in the files that define them, derivatives in
// autograd.cpp. One file, because torch's headers for registration take longer
// to compile than the kernels.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "merganser/ops/adam_fisher_step.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/library.h"
#include "merganser/ops/merge.h"
#include "merganser/ops/ops.h"

namespace merganser::ops {

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
      "Tensor[] fishers, float[] weights, float[] scales, float[] rhos, "
      "float base_scale, int method, float delta, float clamp, float floor) "
      "-> Tensor");
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
  m.def("has_cuda() -> bool", &has_cuda);
}

namespace {

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("square_accumulate_", &square_accumulate_cpu);
  m.impl("adam_fisher_step_", &unpack_adam_fisher_step_<adam_fisher_step_cpu>);
  m.impl("merge", &unpack_merge<merge_cpu>);
  m.impl("linear_square_accumulate_", &linear_square_accumulate_cpu);
  m.impl("bias_square_accumulate_", &bias_square_accumulate_cpu);
  m.impl("embedding_square_accumulate_", &embedding_square_accumulate_cpu);
  m.impl("layer_norm_square_accumulate_", &layer_norm_square_accumulate_cpu);
  m.impl("sample_labels", &sample_labels_cpu);
  m.impl("dropout", &dropout_cpu);
}

// An in-place op has no result to allocate: its Meta kernel is its check.
TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("square_accumulate_", &check_square_accumulate_);
  m.impl(
      "adam_fisher_step_", &unpack_adam_fisher_step_<check_adam_fisher_step_>);
  m.impl("merge", &unpack_merge<merge_meta>);
  m.impl("linear_square_accumulate_", &check_linear_square_accumulate_);
  m.impl("bias_square_accumulate_", &check_bias_square_accumulate_);
  m.impl("embedding_square_accumulate_", &check_embedding_square_accumulate_);
  m.impl("layer_norm_square_accumulate_", &check_layer_norm_square_accumulate_);
  m.impl("sample_labels", &sample_labels_meta);
  m.impl("dropout", &dropout_meta);
}

void refuse(const c10::OperatorHandle& op, c10::Stack* /*stack*/) {
  TORCH_CHECK(
      false,
      op.schema().name(),
      ": this build of Merganser has no CUDA kernels; move the tensors to the "
      "CPU, or rebuild with the CUDA toolkit (nvcc), a CUDA build of torch and "
      "-DMERGANSER_CUDA=ON");
}

// Kernels of a build without CUDA: they throw.
TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  if (has_cuda()) {
    return;
  }
  for (const char* name : kOpNames) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&refuse>());
  }
}

// `f` has the C++ signature of the schema.
template <typename Signature>
auto find_op(const char* name, Signature* /*f*/) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .template typed<Signature>();
}

} // namespace

void square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad,
    double weight) {
  static const auto op =
      find_op("merganser::square_accumulate_", square_accumulate_);
  op.call(fisher, grad, weight);
}

void adam_fisher_step_(const AdamFisherStep& step) {
  static const auto op = find_op(
      "merganser::adam_fisher_step_",
      unpack_adam_fisher_step_<adam_fisher_step_cpu>);
  op.call(
      step.params,
      step.grads,
      step.exp_avgs,
      step.exp_avg_sqs,
      step.fishers,
      step.steps,
      step.lr,
      step.beta1,
      step.beta2,
      step.eps,
      step.weight_decay,
      step.grad_scale,
      step.fisher_weight);
}

at::Tensor merge(const TensorMerge& merge) {
  static const auto op = find_op("merganser::merge", unpack_merge<merge_cpu>);
  return op.call(
      merge.base,
      merge.base_fisher,
      merge.models,
      merge.fishers,
      merge.weights,
      merge.num_examples,
      merge.rhos,
      merge.base_num_examples,
      merge.method,
      merge.delta,
      merge.clamp,
      merge.floor);
}

void linear_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& input,
    const at::Tensor& grad_output,
    double weight) {
  static const auto op = find_op(
      "merganser::linear_square_accumulate_", linear_square_accumulate_);
  op.call(fisher, input, grad_output, weight);
}

void bias_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& grad_output,
    double weight) {
  static const auto op =
      find_op("merganser::bias_square_accumulate_", bias_square_accumulate_);
  op.call(fisher, grad_output, weight);
}

void embedding_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& indices,
    const at::Tensor& grad_output,
    double weight,
    int64_t padding_idx) {
  static const auto op = find_op(
      "merganser::embedding_square_accumulate_", embedding_square_accumulate_);
  op.call(fisher, indices, grad_output, weight, padding_idx);
}

void layer_norm_square_accumulate_(
    at::Tensor& fisher,
    const at::Tensor& normalized,
    const at::Tensor& grad_output,
    double weight) {
  static const auto op = find_op(
      "merganser::layer_norm_square_accumulate_",
      layer_norm_square_accumulate_);
  op.call(fisher, normalized, grad_output, weight);
}

at::Tensor sample_labels(
    const at::Tensor& probabilities,
    const at::Tensor& indices,
    int64_t seed,
    int64_t sample) {
  static const auto op = find_op("merganser::sample_labels", sample_labels);
  return op.call(probabilities, indices, seed, sample);
}

at::Tensor dropout(
    const at::Tensor& input,
    double probability,
    int64_t seed,
    int64_t stream) {
  static const auto op = find_op("merganser::dropout", dropout);
  return op.call(input, probability, seed, stream);
}

} // namespace merganser::ops
