#include "merganser/merge/fisher_means.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/merge/chunk_reader.h"

namespace merganser {

void FisherMean::add(const TensorSource& fisher, int threads) {
  const int64_t n = fisher.tensor.info().numel();
  const int64_t chunks = chunk_count(n);
  std::vector<double> parts(chunks); // added up in the chunks' order
  std::vector<ChunkReader<double>> readers(threads);
  parallel_for(threads, chunks, [&](int64_t i, int worker) {
    const Chunk chunk = chunk_at(n, i);
    Digest ignored;
    readers[worker].read({&fisher, 1}, chunk, {&ignored, 1});
    const double* values = readers[worker].values(0);
    for (int64_t k = 0; k < chunk.n; ++k) {
      parts[i] += values[k];
    }
  });
  for (const double part : parts) {
    sum_ += part;
  }
  count_ += n;
}

double FisherMean::mean(const std::filesystem::path& label) const {
  const double mean = sum_ / static_cast<double>(count_);
  if (!(mean > 0) || !std::isfinite(mean)) {
    throw InputError(fmt::format(
        "{}: the mean of the Fisher is {}; normalize_fishers needs a positive, "
        "finite mean",
        label.string(),
        mean));
  }
  return mean;
}

std::vector<double> fisher_means(const MergePlan& plan, int threads) {
  if (!normalizes_fishers(plan)) {
    return {};
  }
  std::map<std::string_view, const TensorPlan*> by_name;
  for (const TensorPlan& tensor : plan.tensors) {
    if (tensor.action == TensorAction::kMerge) {
      by_name.emplace(tensor.output.name, &tensor);
    }
  }
  std::vector<FisherMean> sums(plan.inputs.size());
  std::set<std::pair<size_t, std::string>> added; // tied tensors share a Fisher
  for (const auto& [name, tensor] : by_name) {
    for (const TensorSource& source : tensor->sources) {
      if (source.is_fisher &&
          added.emplace(source.input, source.tensor.info().name).second) {
        sums[source.input].add(source, threads);
      }
    }
  }
  std::vector<double> means(sums.size());
  for (size_t input = 0; input < sums.size(); ++input) {
    if (!sums[input].is_empty()) {
      means[input] = sums[input].mean(plan.inputs[input]->path());
    }
  }
  return means;
}

} // namespace merganser
