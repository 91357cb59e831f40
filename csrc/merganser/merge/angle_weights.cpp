#include "merganser/merge/angle_weights.h"

#include <algorithm>
#include <cmath>

namespace merganser {

template <typename T>
std::vector<double> slerp_weights(double t, TensorScan<T>& scan) {
  const TensorPlan& tensor = scan.tensor();
  const std::vector<double> sums = scan.sum_over_chunks(
      3, [&](const Chunk& chunk, auto& worker, std::span<double> out) {
        const T* a = worker.reader.values(tensor.base());
        const T* b = worker.reader.values(tensor.model(0));
        for (int64_t i = 0; i < chunk.n; ++i) {
          const double x = a[i];
          const double y = b[i];
          out[0] += x * x;
          out[1] += y * y;
          out[2] += x * y;
        }
      });
  constexpr double kNothing = 1e-8; // a norm
  constexpr double kParallel = 0.9995; // a cosine
  const auto norm = [](double square) {
    return std::sqrt(square) > kNothing ? std::sqrt(square) : 1;
  };
  const double cosine =
      std::clamp(sums[2] / (norm(sums[0]) * norm(sums[1])), -1.0, 1.0);
  if (std::abs(cosine) > kParallel) {
    return {1 - t, t};
  }
  const double angle = std::acos(cosine);
  return {
      std::sin((1 - t) * angle) / std::sin(angle),
      std::sin(t * angle) / std::sin(angle)};
}

template <typename T>
std::vector<double> model_stock_weights(TensorScan<T>& scan) {
  const TensorPlan& tensor = scan.tensor();
  const size_t models = tensor.num_models;
  const std::vector<double> products = scan.sum_over_chunks(
      models * models,
      [&](const Chunk& chunk, auto& worker, std::span<double> out) {
        const T* base = worker.reader.values(tensor.base());
        for (size_t s = 0; s < models; ++s) {
          for (size_t t = s; t < models; ++t) {
            const T* x = worker.reader.values(tensor.model(s));
            const T* y = worker.reader.values(tensor.model(t));
            double sum = 0;
            for (int64_t i = 0; i < chunk.n; ++i) {
              sum += static_cast<double>(x[i] - base[i]) * (y[i] - base[i]);
            }
            out[s * models + t] = sum;
          }
        }
      });
  const auto norm = [&](size_t t) {
    return std::sqrt(products[t * models + t]);
  };
  constexpr double kNothing = 1e-6; // of norms, and of the denominator
  double cosine = 0;
  for (size_t s = 0; s < models; ++s) {
    for (size_t t = s + 1; t < models; ++t) {
      const double norms = std::max(norm(s) * norm(t), kNothing);
      cosine += std::clamp(products[s * models + t] / norms, -1.0, 1.0);
    }
  }
  const auto count = static_cast<double>(models);
  cosine /= count * (count - 1) / 2;
  const double denominator = 1 + (count - 1) * cosine;
  const double share =
      std::abs(denominator) < kNothing ? 0 : count * cosine / denominator;
  return std::vector<double>(models, share / count);
}

template std::vector<double> slerp_weights(double, TensorScan<float>&);
template std::vector<double> slerp_weights(double, TensorScan<double>&);
template std::vector<double> model_stock_weights(TensorScan<float>&);
template std::vector<double> model_stock_weights(TensorScan<double>&);

} // namespace merganser
