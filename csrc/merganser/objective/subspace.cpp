#include "merganser/objective/subspace.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace merganser {
namespace {

// Products of J^T (e_k - e_K) with the columns for each example and k < K:
// (B, K - 1, C).
at::Tensor contrast_products(InnerProductSink& sink, const at::Tensor& logits) {
  const int64_t last = logits.size(1) - 1;
  std::vector<at::Tensor> products;
  for (int64_t k = 0; k < last; ++k) {
    at::Tensor contrast = at::zeros_like(logits);
    contrast.select(1, k).fill_(1);
    contrast.select(1, last).fill_(-1);
    sink.begin_batch(logits.size(0));
    logits.backward(contrast, /*retain_graph=*/k + 1 < last);
    products.push_back(sink.products());
  }
  return at::stack(products, 1);
}

SubspaceStatistics zeros(int64_t columns) {
  const auto options = at::TensorOptions(at::kDouble);
  return {
      at::zeros({columns}, options), at::zeros({columns, columns}, options)};
}

// Elements that are converted to float64 at a time.
constexpr int64_t kChunk = int64_t{1} << 20;

struct Quadratic {
  const at::Tensor& parameters;
  const at::Tensor& start;
  const at::Tensor& precision;
};

// Adds a part of a group; `part` cuts it from a flat array, in float64.
template <typename Part>
void add_quadratic(
    SubspaceStatistics& sums,
    const Subspace& subspace,
    size_t group,
    const Part& part,
    const Quadratic& term) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& vector : subspace.task_vectors) {
    rows.push_back(part(vector));
  }
  const at::Tensor tau = at::stack(rows); // (T, numel)
  const at::Tensor weighted = tau * part(term.precision);
  const at::Tensor step = part(term.parameters) - part(term.start);
  const auto tasks = static_cast<int64_t>(rows.size());
  const int64_t groups = subspace.columns() / tasks;
  const auto g = static_cast<int64_t>(group);
  sums.gradient.view({tasks, groups}).select(1, g).add_(at::mv(weighted, step));
  sums.fisher.view({tasks, groups, tasks, groups})
      .select(3, g)
      .select(1, g)
      .add_(at::mm(weighted, tau.t()));
}

} // namespace

void for_each_products(
    JointObjective& objective,
    const Subspace& subspace,
    size_t task,
    const std::vector<int64_t>& examples,
    const UseProducts& use) {
  const at::AutoGradMode with_gradients(true);
  InnerProductSink sink(objective.model(), objective.arena(), subspace);
  int64_t done = 0;
  objective.for_each_batch(
      task,
      examples,
      [&](const Batch& batch,
          const at::Tensor& logits,
          const at::Tensor& targets) {
        const at::Tensor u = contrast_products(sink, logits);
        const at::NoGradGuard no_grad;
        const at::Tensor p = at::softmax(logits.detach().to(at::kDouble), 1);
        const at::Tensor head = p.narrow(1, 0, u.size(1));
        const at::Tensor difference = (p - targets).narrow(1, 0, u.size(1));
        done += logits.size(0);
        use({.jacobian = u,
             .covariance = at::diag_embed(head) -
                 at::bmm(head.unsqueeze(2), head.unsqueeze(1)),
             .gradient = (u * difference.unsqueeze(2)).sum(1),
             .indices = batch.indices},
            done);
      });
}

SubspaceStatistics subspace_statistics(
    JointObjective& objective,
    const Subspace& subspace,
    size_t task,
    const std::vector<int64_t>& examples) {
  SubspaceStatistics sums = zeros(subspace.columns());
  for_each_products(
      objective,
      subspace,
      task,
      examples,
      [&](const ExampleProducts& batch, int64_t) {
        sums.gradient.add_(batch.gradient.sum(0));
        const at::Tensor weighted = at::bmm(batch.covariance, batch.jacobian);
        sums.fisher.addmm_(
            batch.jacobian.flatten(0, 1).t(), weighted.flatten(0, 1));
      });
  const double scale = objective.tasks()[task].scale(examples.size());
  sums.gradient.mul_(scale);
  sums.fisher.mul_(scale);
  return sums;
}

SubspaceStatistics quadratic_statistics(
    const Arena& arena,
    const Subspace& subspace,
    const at::Tensor& start,
    const at::Tensor& precision) {
  const at::NoGradGuard no_grad;
  SubspaceStatistics sums = zeros(subspace.columns());
  for (size_t i = 0; i < arena.entries().size(); ++i) {
    const Arena::Entry& entry = arena.entries()[i];
    const int64_t end = entry.offset + entry.numel;
    for (int64_t at = entry.offset; at < end; at += kChunk) {
      const int64_t size = std::min(kChunk, end - at);
      add_quadratic(
          sums,
          subspace,
          subspace.groups.of_entry[i],
          [&](const at::Tensor& flat) {
            return flat.narrow(0, at, size).to(at::kDouble);
          },
          {arena.parameters, start, precision});
    }
  }
  return sums;
}

void move_in_subspace(
    Arena& arena,
    const Subspace& subspace,
    const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  const size_t groups = subspace.groups.names.size();
  const double* w = weights.const_data_ptr<double>();
  for (size_t t = 0; t < subspace.task_vectors.size(); ++t) {
    for (size_t i = 0; i < arena.entries().size(); ++i) {
      const Arena::Entry& entry = arena.entries()[i];
      Arena::view(arena.parameters, entry)
          .add_(
              Arena::view(subspace.task_vectors[t], entry),
              w[t * groups + subspace.groups.of_entry[i]]);
    }
  }
}

} // namespace merganser
