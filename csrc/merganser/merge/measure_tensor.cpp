#include "merganser/merge/measure_tensor.h"

#include <cmath>
#include <limits>

#include "merganser/merge/angle_weights.h"
#include "merganser/merge/gram.h"
#include "merganser/merge/ranked_mask.h"
#include "merganser/merge/sparsify.h"
#include "merganser/merge/spectral.h"
#include "merganser/merge/tensor_scan.h"
#include "merganser/merge/thresholds.h"

namespace merganser {
namespace {

// Returns per model sum |tau| / sum |kept tau|, over the task vector tau.
template <typename T>
std::vector<double> find_rescales(
    const TensorPlan& tensor,
    size_t output,
    const TensorStatistics& found,
    TensorScan<T>& scan) {
  const size_t models = tensor.num_models;
  const std::vector<double> sums = scan.sum_over_chunks(
      2 * models, [&](const Chunk& chunk, auto& worker, std::span<double> out) {
        std::vector<T> kept(kChunkElements);
        for (size_t t = 0; t < models; ++t) {
          sparsify(
              tensor,
              chunk,
              {.model = t, .output = output, .statistics = found},
              worker.reader.values(tensor.base()),
              worker.reader.values(tensor.model(t)),
              kept.data());
          const auto whole = scan.task_vector(worker, chunk, t);
          for (int64_t i = 0; i < chunk.n; ++i) {
            out[2 * t] += std::abs(static_cast<double>(whole[i]));
            out[2 * t + 1] += std::abs(static_cast<double>(kept[i]));
          }
        }
      });
  constexpr double kNothing = 1e-7; // mergekit's
  std::vector<double> rescale(models, 1);
  for (size_t t = 0; t < models; ++t) {
    if (sums[2 * t] >= kNothing && sums[2 * t + 1] >= kNothing) {
      rescale[t] = sums[2 * t] / sums[2 * t + 1];
    }
  }
  return rescale;
}

template <typename T>
TensorStatistics measure(const TensorPlan& tensor, size_t output, int threads) {
  const MethodInfo& method = *tensor.method;
  const TensorParameters& parameters = tensor.parameters[output];
  const size_t models = tensor.num_models;
  TensorScan<T> scan(tensor, threads);
  TensorStatistics found;
  found.min_magnitude.assign(models, 0);
  found.max_magnitude.assign(models, std::numeric_limits<double>::infinity());
  found.rescale.assign(models, 1);
  if (method.sparsify == Sparsify::kMagnitude ||
      method.sparsify == Sparsify::kOutliers) {
    find_thresholds(tensor, parameters, scan, found);
  }
  if (method.sparsify == Sparsify::kRanked && has_long_rows(tensor.output)) {
    for (size_t t = 0; t < models; ++t) {
      found.mask.push_back(
          parameters.density[t] < 1
              ? mask_long_rows<T>(tensor, t, output, threads)
              : std::vector<uint64_t>());
    }
  }
  if (method.sparsify != Sparsify::kNone && parameters.rescale != 0) {
    found.rescale = find_rescales(tensor, output, found, scan);
  }
  if (method.weights == WeightRule::kSlerp) {
    found.weights = slerp_weights(parameters.t, scan);
  } else if (method.weights == WeightRule::kModelStock) {
    found.weights = model_stock_weights(scan);
  }
  return found;
}

} // namespace

TensorStatistics measure_tensor(
    const TensorPlan& tensor,
    size_t output,
    int threads) {
  if (!tensor.grams.empty()) {
    TensorStatistics found;
    found.merged = merge_with_grams(tensor, output, threads);
    return found;
  }
  if (tensor.spectral) {
    TensorStatistics found;
    found.update = merge_task_vectors(tensor, threads);
    return found;
  }
  return tensor.float64 ? measure<double>(tensor, output, threads)
                        : measure<float>(tensor, output, threads);
}

bool same_statistics(
    const MethodInfo& method,
    const TensorParameters& a,
    const TensorParameters& b) {
  if (method.needs_grams()) {
    return a == b; // the merged tensor itself
  }
  return a.density == b.density && a.gamma == b.gamma &&
      a.epsilon == b.epsilon && a.rescale == b.rescale && a.seed == b.seed &&
      a.t == b.t;
}

uint64_t statistics_memory(const MethodInfo& method, size_t models) {
  // The merge itself holds its own buffers in addition.
  const uint64_t reader =
      method.needs_statistics() ? ChunkReader<double>::memory(models + 2) : 0;
  return reader + thresholds_memory(method, models) +
      random_mask_memory(method);
}

} // namespace merganser
