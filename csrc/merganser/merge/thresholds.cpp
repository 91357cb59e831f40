#include "merganser/merge/thresholds.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "merganser/merge/rank_selection.h"

namespace merganser {
namespace {

// A rank of one model's magnitudes that becomes a threshold.
template <typename T>
struct Selection {
  size_t model;
  std::vector<double> TensorStatistics::*threshold;
  RankSelection<T> rank;
};

// Keeps int(density n) elements, as mergekit does, and for TIES at least one.
template <typename T>
std::vector<Selection<T>> selections(
    bool outliers,
    int64_t numel,
    const TensorParameters& parameters,
    TensorStatistics& found) {
  std::vector<Selection<T>> all;
  const auto n = static_cast<double>(numel);
  for (size_t t = 0; t < parameters.density.size(); ++t) {
    const double density = parameters.density[t];
    auto kept = static_cast<int64_t>(density * n);
    if (density >= 1 || numel == 0) {
      continue;
    }
    if (!outliers && density > 0) {
      kept = std::max<int64_t>(kept, 1);
    }
    if (kept == 0) {
      found.min_magnitude[t] = std::numeric_limits<double>::infinity();
      continue;
    }
    const int64_t above =
        outliers ? static_cast<int64_t>(parameters.gamma[t] * n) : 0;
    const int64_t first = std::max<int64_t>(0, numel - kept - above);
    all.push_back(
        {t, &TensorStatistics::min_magnitude, RankSelection<T>(first)});
    if (outliers) {
      all.push_back(
          {t,
           &TensorStatistics::max_magnitude,
           RankSelection<T>(first + kept - 1)});
    }
  }
  return all;
}

} // namespace

template <typename T>
void find_thresholds(
    const TensorPlan& tensor,
    const TensorParameters& parameters,
    TensorScan<T>& scan,
    TensorStatistics& found) {
  using Histogram = typename RankSelection<T>::Histogram;
  auto wanted = selections<T>(
      tensor.method->sparsify == Sparsify::kOutliers,
      tensor.output.numel(),
      parameters,
      found);
  if (wanted.empty()) {
    return;
  }
  for (int pass = 0; pass < RankSelection<T>::kPasses; ++pass) {
    const std::vector<Histogram> empty(
        wanted.size(), RankSelection<T>::empty_histogram());
    std::vector<std::vector<Histogram>> counts(scan.workers(), empty);
    scan.for_chunks([&](const Chunk& chunk, auto& worker) {
      for (size_t k = 0; k < wanted.size(); ++k) {
        wanted[k].rank.count(
            scan.task_vector(worker, chunk, wanted[k].model),
            counts[worker.index][k]);
      }
    });
    for (size_t k = 0; k < wanted.size(); ++k) {
      Histogram total = RankSelection<T>::empty_histogram();
      for (const std::vector<Histogram>& count : counts) {
        std::ranges::transform(total, count[k], total.begin(), std::plus());
      }
      wanted[k].rank.advance(total);
    }
  }
  for (const Selection<T>& selection : wanted) {
    (found.*selection.threshold)[selection.model] = selection.rank.value();
  }
}

uint64_t thresholds_memory(const MethodInfo& method, size_t models) {
  const uint64_t selections = method.sparsify == Sparsify::kMagnitude ? 1
      : method.sparsify == Sparsify::kOutliers                        ? 2
                                                                      : 0;
  const uint64_t histogram = sizeof(uint64_t)
      << RankSelection<float>::kDigitBits;
  return models * selections * histogram;
}

template void find_thresholds(
    const TensorPlan&,
    const TensorParameters&,
    TensorScan<float>&,
    TensorStatistics&);
template void find_thresholds(
    const TensorPlan&,
    const TensorParameters&,
    TensorScan<double>&,
    TensorStatistics&);

} // namespace merganser
