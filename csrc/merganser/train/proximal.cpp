#include "merganser/train/proximal.h"

#include <ATen/Parallel.h>

#include <functional>

#include "merganser/train/flat_fisher.h"

namespace merganser {
Proximal::Proximal(
    const Arena& arena,
    const std::filesystem::path& fisher,
    const std::string& model_hash,
    double weight,
    int64_t num_examples)
    : start_(arena.parameters.clone()) {
  FlatFisher base = read_flat_fisher(
      arena, fisher, model_hash, "the one that training starts from");
  precision_ = base.mean.mul_(
      weight * base.num_examples / static_cast<double>(num_examples));
}

double Proximal::add_gradient(const Arena& arena) const {
  const float* now = arena.parameters.const_data_ptr<float>();
  const float* start = start_.const_data_ptr<float>();
  const float* precision = precision_.const_data_ptr<float>();
  float* gradient = arena.gradients.data_ptr<float>();
  const auto add = [&](int64_t begin, int64_t end, double sum) {
    for (int64_t i = begin; i < end; i++) {
      const float difference = now[i] - start[i];
      const float pull = precision[i] * difference;
      gradient[i] += pull;
      sum += static_cast<double>(pull) * difference;
    }
    return sum;
  };
  const double twice = at::parallel_reduce(
      0,
      arena.parameters.numel(),
      at::internal::GRAIN_SIZE,
      0.0,
      add,
      std::plus<>());
  return 0.5 * twice;
}

} // namespace merganser
