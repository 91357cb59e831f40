#include "merganser/objective/inner_product_sink.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "merganser/train/arena.h"

namespace merganser {
namespace {

bool is_half(const at::Tensor& tensor) {
  return at::promote_types(tensor.scalar_type(), at::kFloat) !=
      tensor.scalar_type();
}

// sum_j x_ij y_ij for tensors (B, ...), in float32 or wider; products of half
// types are rounded to their type before the sum, as the factors were.
at::Tensor dot_examples(const at::Tensor& x, const at::Tensor& y) {
  if (is_half(x)) {
    return (x * y).flatten(1).sum(1, /*keepdim=*/false, at::kFloat);
  }
  return at::bmm(x.flatten(1).unsqueeze(1), y.flatten(1).unsqueeze(2)).view(-1);
}

// (B, in) or (B, ..., in) as (B, L, in).
at::Tensor tokens(const at::Tensor& tensor) {
  return tensor.dim() == 2 ? tensor.unsqueeze(1) : tensor.flatten(1, -2);
}

// <D_i^T A_i, tau_t> = sum D_i o (A_i tau_t^T) with inputs A (B, ..., in) and
// their gradients D (B, ..., out): (T, B). One matrix product of the layer's
// size for each vector.
at::Tensor products_by_vector(
    const at::Tensor& input,
    const at::Tensor& grad,
    const std::vector<at::Tensor>& directions) {
  // The smaller of the two products, A tau^T (out) and D tau (in).
  const bool narrow_input = input.size(-1) <= grad.size(-1);
  std::vector<at::Tensor> products;
  for (const at::Tensor& tau : directions) {
    products.push_back(
        narrow_input ? dot_examples(at::matmul(grad, tau), input)
                     : dot_examples(at::matmul(input, tau.t()), grad));
  }
  return at::stack(products);
}

// Elements of the examples' gradients that exist at a time.
constexpr int64_t kTile = int64_t{1} << 20;

// The same from a few rows of every D_i^T A_i (out, in) at a time, which stay
// in the cache: as many operations as the gradient of the batch, and few more
// for each vector. For three vectors it takes half of the time in float32, for
// one three to ten times as long, and more in half types, whose products of
// whole layers are faster than those of small matrices.
at::Tensor products_by_tiles(
    const at::Tensor& input,
    const at::Tensor& grad,
    const std::vector<at::Tensor>& directions) {
  const int64_t rows =
      std::max<int64_t>(1, kTile / (input.size(0) * input.size(2)));
  const auto count = static_cast<int64_t>(directions.size());
  at::Tensor products = at::zeros({count, input.size(0)}, input.options());
  for (int64_t o = 0; o < grad.size(2); o += rows) {
    const int64_t part = std::min(rows, grad.size(2) - o);
    const at::Tensor gradients =
        at::bmm(grad.narrow(2, o, part).transpose(1, 2), input).flatten(1);
    std::vector<at::Tensor> tau;
    for (const at::Tensor& direction : directions) {
      tau.push_back(direction.narrow(0, o, part).flatten());
    }
    products.addmm_(at::stack(tau), gradients.t());
  }
  return products;
}

// The sum over everything between examples and channels: (B, C).
at::Tensor sum_tokens(const at::Tensor& tensor) {
  return tensor.dim() == 2 ? tensor : tensor.flatten(1, -2).sum(1);
}

} // namespace

InnerProductSink::InnerProductSink(
    Encoder& model,
    const Arena& arena,
    const Subspace& subspace)
    : model_(model) {
  const auto parameters = model->named_parameters();
  const auto tasks = static_cast<int64_t>(subspace.task_vectors.size());
  const auto groups = static_cast<int64_t>(subspace.groups.names.size());
  for (size_t i = 0; i < arena.entries().size(); ++i) {
    const Arena::Entry& entry = arena.entries()[i];
    Slot slot{
        .directions = {},
        .group = static_cast<int64_t>(subspace.groups.of_entry[i])};
    for (const at::Tensor& vector : subspace.task_vectors) {
      slot.directions.push_back(Arena::view(vector, entry));
    }
    slots_.push_back(std::move(slot));
    add_slot(parameters[entry.name]);
  }
  sums_ = at::zeros({tasks, groups, 0}, at::kDouble);
  model_->set_gradient_sink(this);
}

InnerProductSink::~InnerProductSink() {
  model_->set_gradient_sink(nullptr);
}

void InnerProductSink::begin_batch(int64_t examples) {
  sums_ = at::zeros({sums_.size(0), sums_.size(1), examples}, sums_.options());
}

at::Tensor InnerProductSink::products() const {
  return sums_.flatten(0, 1).t();
}

void InnerProductSink::add(
    const Slot& slot,
    size_t task,
    const at::Tensor& values) {
  sums_[static_cast<int64_t>(task)][slot.group].add_(values);
}

void InnerProductSink::add_vector(
    const Slot& slot,
    const at::Tensor& gradient) {
  const at::Tensor wide = gradient.to(at::kDouble);
  for (size_t t = 0; t < slot.directions.size(); ++t) {
    add(slot, t, at::mv(wide, slot.directions[t].to(at::kDouble)));
  }
}

void InnerProductSink::add_linear(
    int64_t slot,
    const at::Tensor& input,
    const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  Slot& to = slots_[slot];
  // Once, instead of for each batch: under autocast every input of a layer has
  // the same type.
  for (at::Tensor& direction : to.directions) {
    direction = direction.to(input.scalar_type());
  }
  const at::Tensor products = is_half(input) || to.directions.size() == 1
      ? products_by_vector(input, grad, to.directions)
      : products_by_tiles(tokens(input), tokens(grad), to.directions);
  for (size_t t = 0; t < to.directions.size(); ++t) {
    add(to, t, products[static_cast<int64_t>(t)]);
  }
}

void InnerProductSink::add_bias(int64_t slot, const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  add_vector(slots_[slot], sum_tokens(grad));
}

void InnerProductSink::add_layer_norm(
    int64_t slot,
    const at::Tensor& normalized,
    const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  add_vector(slots_[slot], sum_tokens(grad * normalized));
}

void InnerProductSink::add_embedding(
    int64_t slot,
    const at::Tensor& indices,
    const at::Tensor& grad,
    int64_t padding_idx) {
  const at::NoGradGuard no_grad;
  const Slot& to = slots_[slot];
  at::Tensor used = grad;
  if (padding_idx >= 0) {
    used = grad * indices.ne(padding_idx).unsqueeze(-1);
  }
  for (size_t t = 0; t < to.directions.size(); ++t) {
    add(to, t, dot_examples(used, at::embedding(to.directions[t], indices)));
  }
}

} // namespace merganser
