#include "merge/tensor_statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "io/parallel.h"
#include "merge/chunk_reader.h"
#include "merge/gram.h"
#include "merge/long_rows.h"
#include "merge/rank_selection.h"
#include "merge/sparsify.h"

namespace merganser {
namespace {

template <typename T>
class Measurement {
 public:
  Measurement(const MergePlan& plan, size_t tensor, size_t output, int threads)
      : plan_(plan),
        tensor_(plan.tensors[tensor]),
        parameters_(tensor_.parameters[output]),
        output_(output),
        chunks_(plan, {tensor}),
        workers_(threads),
        threads_(threads) {}

  TensorStatistics run() {
    const MethodInfo& method = *plan_.recipe.method;
    const size_t models = tensor_.scales.size();
    found_.least.assign(models, 0);
    found_.most.assign(models, std::numeric_limits<double>::infinity());
    found_.rescale.assign(models, 1);
    if (method.sparsify == Sparsify::kMagnitude ||
        method.sparsify == Sparsify::kOutliers) {
      find_thresholds();
    }
    if (method.sparsify == Sparsify::kRanked && has_long_rows(tensor_.output)) {
      choose();
    }
    if (method.sparsify != Sparsify::kNone && parameters_.rescale != 0) {
      find_rescales();
    }
    if (method.weights == WeightRule::kSlerp) {
      find_slerp_weights();
    } else if (method.weights == WeightRule::kModelStock) {
      find_model_stock_weights();
    }
    return std::move(found_);
  }

 private:
  struct Worker {
    ChunkReader<T> reader;
    std::vector<T> task_vector;
    std::vector<Digest> digests;
    std::vector<typename RankSelection<T>::Histogram> histograms;
  };

  // Of a model, what becomes a threshold in found_.
  struct Selection {
    size_t model;
    std::vector<double> TensorStatistics::*threshold;
    RankSelection<T> rank;
  };

  using Work = std::function<void(const Chunk& chunk, Worker& worker)>;

  void for_chunks(const Work& work) {
    parallel_for(threads_, chunks_.size(), [&](int64_t i, int worker) {
      Worker& w = workers_[worker];
      w.digests.resize(tensor_.sources.size());
      const Chunk chunk = chunks_[i];
      w.reader.read(tensor_.sources, chunk, w.digests);
      work(chunk, w);
    });
  }

  // theta_t - theta_0 of a chunk that was read.
  static std::span<const T> task_vector(
      Worker& worker,
      const Chunk& chunk,
      size_t model) {
    worker.task_vector.resize(kChunkElements);
    const T* base = worker.reader.values(0);
    const T* theta = worker.reader.values(1 + model);
    for (int64_t i = 0; i < chunk.n; ++i) {
      worker.task_vector[i] = theta[i] - base[i];
    }
    return std::span(worker.task_vector).first(chunk.n);
  }

  // mergekit's counts: int(density n), of magnitudes at least one.
  std::vector<Selection> selections() {
    std::vector<Selection> all;
    const int64_t numel = tensor_.output.numel();
    const auto n = static_cast<double>(numel);
    for (size_t t = 0; t < tensor_.scales.size(); ++t) {
      const double density = parameters_.density[t];
      const bool outliers =
          plan_.recipe.method->sparsify == Sparsify::kOutliers;
      auto kept = static_cast<int64_t>(density * n);
      if (density >= 1 || numel == 0) {
        continue;
      }
      if (!outliers && density > 0) {
        kept = std::max<int64_t>(kept, 1);
      }
      if (kept == 0) {
        found_.least[t] = std::numeric_limits<double>::infinity();
        continue;
      }
      const int64_t above =
          outliers ? static_cast<int64_t>(parameters_.gamma[t] * n) : 0;
      const int64_t first = std::max<int64_t>(0, numel - kept - above);
      all.push_back({t, &TensorStatistics::least, RankSelection<T>(first)});
      if (outliers) {
        all.push_back(
            {t, &TensorStatistics::most, RankSelection<T>(first + kept - 1)});
      }
    }
    return all;
  }

  void find_thresholds() {
    std::vector<Selection> wanted = selections();
    for (int pass = 0; pass < RankSelection<T>::kPasses && !wanted.empty();
         ++pass) {
      for (Worker& worker : workers_) {
        worker.histograms.assign(
            wanted.size(), RankSelection<T>::empty_histogram());
      }
      for_chunks([&](const Chunk& chunk, Worker& worker) {
        for (size_t k = 0; k < wanted.size(); ++k) {
          wanted[k].rank.count(
              task_vector(worker, chunk, wanted[k].model),
              worker.histograms[k]);
        }
      });
      for (size_t k = 0; k < wanted.size(); ++k) {
        auto total = RankSelection<T>::empty_histogram();
        for (const Worker& worker : workers_) {
          std::ranges::transform(
              total, worker.histograms[k], total.begin(), std::plus());
        }
        wanted[k].rank.advance(total);
      }
    }
    for (const Selection& selection : wanted) {
      (found_.*selection.threshold)[selection.model] = selection.rank.value();
    }
  }

  void choose() {
    for (size_t t = 0; t < tensor_.scales.size(); ++t) {
      found_.chosen.push_back(
          parameters_.density[t] < 1
              ? choose_in_long_rows<T>(tensor_, t, output_, threads_)
              : std::vector<uint64_t>());
    }
  }

  // Sums over the tensor's elements, per chunk and then in the chunks' order:
  // the same for any number of threads.
  std::vector<double> sum_over_chunks(
      size_t count,
      const std::function<void(const Chunk&, Worker&, std::span<double> sums)>&
          add) {
    std::vector<double> parts(count * static_cast<size_t>(chunks_.size()));
    for_chunks([&](const Chunk& chunk, Worker& worker) {
      add(chunk, worker, std::span(parts).subspan(chunk.index * count, count));
    });
    std::vector<double> sums(count);
    for (size_t i = 0; i < parts.size(); ++i) {
      sums[i % count] += parts[i];
    }
    return sums;
  }

  void find_rescales() {
    const size_t models = tensor_.scales.size();
    const std::vector<double> sums = sum_over_chunks(
        2 * models,
        [&](const Chunk& chunk, Worker& worker, std::span<double> out) {
          std::vector<T> kept(kChunkElements);
          for (size_t t = 0; t < models; ++t) {
            sparsify(
                plan_,
                tensor_,
                chunk,
                {.model = t, .output = output_, .statistics = found_},
                worker.reader.values(0),
                worker.reader.values(1 + t),
                kept.data());
            const auto whole = task_vector(worker, chunk, t);
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
    found_.rescale = rescale;
  }

  void find_slerp_weights() {
    const std::vector<double> sums = sum_over_chunks(
        3, [&](const Chunk& chunk, Worker& worker, std::span<double> out) {
          const T* a = worker.reader.values(0);
          const T* b = worker.reader.values(1);
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
    const double t = parameters_.t;
    if (std::abs(cosine) > kParallel) {
      found_.weights = {1 - t, t};
      return;
    }
    const double angle = std::acos(cosine);
    found_.weights = {
        std::sin((1 - t) * angle) / std::sin(angle),
        std::sin(t * angle) / std::sin(angle)};
  }

  void find_model_stock_weights() {
    const size_t models = tensor_.scales.size();
    const std::vector<double> products = sum_over_chunks(
        models * models,
        [&](const Chunk& chunk, Worker& worker, std::span<double> out) {
          const T* base = worker.reader.values(0);
          for (size_t s = 0; s < models; ++s) {
            for (size_t t = s; t < models; ++t) {
              const T* x = worker.reader.values(1 + s);
              const T* y = worker.reader.values(1 + t);
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
    found_.weights.assign(models, share / count);
  }

  const MergePlan& plan_;
  const TensorPlan& tensor_;
  const TensorParameters& parameters_;
  const size_t output_;
  const ChunkList chunks_;
  std::vector<Worker> workers_;
  const int threads_;
  TensorStatistics found_;
};

} // namespace

TensorStatistics measure_tensor(
    const MergePlan& plan,
    size_t tensor,
    size_t output,
    int threads) {
  if (!plan.tensors[tensor].grams.empty()) {
    TensorStatistics found;
    found.merged =
        merge_with_grams(plan, plan.tensors[tensor], output, threads);
    return found;
  }
  return plan.tensors[tensor].float64
      ? Measurement<double>(plan, tensor, output, threads).run()
      : Measurement<float>(plan, tensor, output, threads).run();
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
  const uint64_t selections = method.sparsify == Sparsify::kMagnitude ? 1
      : method.sparsify == Sparsify::kOutliers                        ? 2
                                                                      : 0;
  const uint64_t histogram = sizeof(uint64_t)
      << RankSelection<float>::kDigitBits;
  // Read beside what the merge itself holds.
  const uint64_t reader =
      method.needs_statistics() ? ChunkReader<double>::memory(models + 2) : 0;
  return reader + models * selections * histogram + chance_memory(method);
}

} // namespace merganser
