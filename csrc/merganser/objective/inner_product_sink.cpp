#include "merganser/objective/inner_product_sink.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace merganser {
namespace {

// sum_j x_ij y_ij for tensors (B, ...), float32 or wider.
at::Tensor dot_examples(const at::Tensor& x, const at::Tensor& y) {
  const auto rows = [](const at::Tensor& tensor) {
    return at::promote_types(tensor.scalar_type(), at::kFloat) ==
            tensor.scalar_type()
        ? tensor.flatten(1)
        : tensor.to(at::kFloat).flatten(1);
  };
  return at::bmm(rows(x).unsqueeze(1), rows(y).unsqueeze(2)).view(-1);
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
  const Slot& to = slots_[slot];
  for (size_t t = 0; t < to.directions.size(); ++t) {
    const at::Tensor tau = to.directions[t].to(input.scalar_type());
    // The smaller of the two products, A tau^T (out) and D tau (in).
    const bool narrow_input = input.size(-1) <= grad.size(-1);
    add(to,
        t,
        narrow_input ? dot_examples(at::matmul(grad, tau), input)
                     : dot_examples(at::matmul(input, tau.t()), grad));
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
