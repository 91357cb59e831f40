#include "merge/fisher_means.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "io/error.h"
#include "io/parallel.h"
#include "merge/chunk_reader.h"

namespace merganser {
namespace {

struct Sum {
  double sum = 0;
  int64_t count = 0;
};

// Adds the Fishers of a tensor, chunk by chunk and in the chunks' order.
void add_tensor(
    const MergePlan& plan,
    size_t tensor,
    std::vector<ChunkReader<double>>& readers,
    std::vector<Sum>& sums) {
  std::vector<TensorSource> fishers;
  std::ranges::copy_if(
      plan.tensors[tensor].sources,
      std::back_inserter(fishers),
      &TensorSource::is_fisher);
  const size_t count = fishers.size();
  const ChunkList chunks(plan, {tensor});
  std::vector<double> parts(count * static_cast<size_t>(chunks.size()));
  parallel_for(
      static_cast<int>(readers.size()),
      count == 0 ? 0 : chunks.size(),
      [&](int64_t i, int worker) {
        const Chunk chunk = chunks[i];
        std::vector<Digest> ignored(count);
        readers[worker].read(fishers, chunk, ignored);
        for (size_t f = 0; f < count; ++f) {
          const double* values = readers[worker].values(f);
          for (int64_t k = 0; k < chunk.n; ++k) {
            parts[i * count + f] += values[k];
          }
        }
      });
  for (size_t i = 0; i < parts.size(); ++i) {
    sums[fishers[i % count].input].sum += parts[i];
  }
  for (const TensorSource& source : fishers) {
    sums[source.input].count += source.tensor.info().numel();
  }
}

} // namespace

std::vector<double> fisher_means(const MergePlan& plan, int threads) {
  std::vector<ChunkReader<double>> readers(threads);
  std::vector<Sum> sums(plan.inputs.size());
  for (size_t tensor = 0; tensor < plan.tensors.size(); ++tensor) {
    if (plan.tensors[tensor].action == TensorAction::kMerge) {
      add_tensor(plan, tensor, readers, sums);
    }
  }
  std::vector<double> means(sums.size());
  for (size_t input = 0; input < sums.size(); ++input) {
    const auto [sum, count] = sums[input];
    if (count == 0) {
      continue;
    }
    means[input] = sum / static_cast<double>(count);
    if (!(means[input] > 0) || !std::isfinite(means[input])) {
      throw InputError(fmt::format(
          "{}: its mean is {}, which no Fisher can be divided by",
          plan.inputs[input]->path().string(),
          means[input]));
    }
  }
  return means;
}

bool needs_fisher_means(const MergePlan& plan) {
  return std::ranges::any_of(plan.tensors, [](const TensorPlan& tensor) {
    return std::ranges::any_of(tensor.parameters, [](const auto& parameters) {
      return parameters.normalize_fishers != 0;
    });
  });
}

} // namespace merganser
