#include "merganser/ops/checks.h"

#include <cmath>

namespace merganser::ops {

std::string dtype_name(const at::Tensor& tensor) {
  return std::string(c10::getDtypeNames(tensor.scalar_type()).first);
}

void check_device(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& like) {
  TORCH_CHECK(
      tensor.device() == like.device(),
      op,
      ": ",
      name,
      " must be on ",
      like.device(),
      " like the others, got ",
      tensor.device());
}

void check_accumulator(
    const char* op,
    const char* name,
    const at::Tensor& tensor) {
  TORCH_CHECK(
      tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble,
      op,
      ": ",
      name,
      " must be float32 or float64, got ",
      dtype_name(tensor));
  TORCH_CHECK(
      tensor.is_contiguous(),
      op,
      ": ",
      name,
      " must be contiguous because it is updated in place, got strides ",
      tensor.strides(),
      " for shape ",
      tensor.sizes());
}

void check_input(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& accumulator) {
  const at::ScalarType type = tensor.scalar_type();
  TORCH_CHECK(
      type == at::kFloat || type == at::kBFloat16 || type == at::kHalf ||
          (type == at::kDouble && accumulator.scalar_type() == at::kDouble),
      op,
      ": ",
      name,
      " must be float32, bfloat16 or float16",
      type == at::kDouble ? " (float64 only with float64 accumulators)" : "",
      ", got ",
      dtype_name(tensor));
  check_device(op, name, tensor, accumulator);
}

void check_indices(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& like) {
  TORCH_CHECK(
      tensor.scalar_type() == at::kLong,
      op,
      ": ",
      name,
      " must be int64, got ",
      dtype_name(tensor));
  check_device(op, name, tensor, like);
}

void check_shape(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    at::IntArrayRef expected) {
  TORCH_CHECK(
      tensor.sizes() == expected,
      op,
      ": ",
      name,
      " must have shape ",
      expected,
      ", got ",
      tensor.sizes());
}

void check_dim(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    int64_t dim) {
  TORCH_CHECK(
      tensor.dim() == dim,
      op,
      ": ",
      name,
      " must have ",
      dim,
      dim == 1 ? " dimension, got shape " : " dimensions, got shape ",
      tensor.sizes());
}

void check_same_dtype(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    const char* other_name,
    const at::Tensor& other) {
  TORCH_CHECK(
      tensor.scalar_type() == other.scalar_type(),
      op,
      ": ",
      name,
      " must have the dtype of ",
      other_name,
      ", ",
      dtype_name(other),
      ", got ",
      dtype_name(tensor));
}

void check_tokens(
    const char* op,
    const char* name,
    const at::Tensor& tensor,
    int64_t channels) {
  TORCH_CHECK(
      (tensor.dim() == 2 || tensor.dim() == 3) && tensor.size(-1) == channels,
      op,
      ": ",
      name,
      " must have shape (B, L, ",
      channels,
      ") or (B, ",
      channels,
      "), got ",
      tensor.sizes());
}

void check_weight(const char* op, double weight) {
  TORCH_CHECK(
      std::isfinite(weight), op, ": weight must be finite, got ", weight);
}

at::Tensor as_tokens(const at::Tensor& tensor) {
  return tensor.dim() == 2 ? tensor.unsqueeze(1) : tensor;
}

at::Tensor kernel_input(const at::Tensor& tensor, at::ScalarType accumulator) {
  return (accumulator == at::kDouble ? tensor.to(at::kDouble) : tensor)
      .contiguous();
}

std::pair<at::Tensor, at::Tensor> kernel_inputs(
    const at::Tensor& first,
    const at::Tensor& second,
    at::ScalarType accumulator) {
  const at::ScalarType common =
      c10::promoteTypes(first.scalar_type(), second.scalar_type());
  return {
      kernel_input(as_tokens(first).to(common), accumulator),
      kernel_input(as_tokens(second).to(common), accumulator)};
}

} // namespace merganser::ops
