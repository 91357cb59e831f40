#pragma once

#include <vector>

#include "merganser/merge/merge_elements.h"

namespace merganser::test {

// Merges a few numbers, models[t][i], fishers[t][i] and so on, with
// merge_elements; the parameters are stored as P.
template <typename T, typename P = T>
struct Elements {
  std::vector<P> base;
  std::vector<T> base_fisher;
  std::vector<std::vector<P>> models;
  std::vector<std::vector<T>> fishers;
  std::vector<T> weights, scales;
  std::vector<T> rhos = {}; // empty: null
  T base_scale = 1, delta = 0, clamp = T(0.05), floor = T(1e-6);
  T lambda = T(0.75);
  bool normalize = true;
  int64_t clamped = 0; // set by merge
  T largest_weight = 0; // likewise

  std::vector<P> merge(MergeFormula method) {
    std::vector<const P*> model_pointers;
    std::vector<const T*> fisher_pointers;
    for (const auto& model : models) {
      model_pointers.push_back(model.data());
    }
    for (const auto& fisher : fishers) {
      fisher_pointers.push_back(fisher.data());
    }
    const MergeScalars<T> scalars = {
        .count = static_cast<int>(models.size()),
        .weights = weights.data(),
        .scales = scales.data(),
        .rhos = rhos.empty() ? nullptr : rhos.data(),
        .base_scale = base_scale,
        .delta = delta,
        .clamp = clamp,
        .floor = floor,
        .lambda = lambda,
        .normalize = normalize};
    std::vector<P> out(models[0].size());
    const MergeArrays<T, P> arrays = {
        .base = base.empty() ? nullptr : base.data(),
        .base_fisher = base_fisher.empty() ? nullptr : base_fisher.data(),
        .models = model_pointers.data(),
        .fishers = fisher_pointers.data(),
        .out = out.data()};
    const auto found = merge_elements(method, scalars, arrays, std::ssize(out));
    clamped = found.clamped;
    largest_weight = found.largest_weight;
    return out;
  }
};

} // namespace merganser::test
