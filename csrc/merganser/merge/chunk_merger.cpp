#include "merganser/merge/chunk_merger.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/merge/arithmetic.h"
#include "merganser/merge/rank_selection.h"
#include "merganser/merge/sparsify.h"
#include "merganser/merge/value_errors.h"

namespace merganser {
namespace {

// True if parameters and output are BFloat16, which the formula's loop converts
// itself.
bool is_bfloat16(const TensorPlan& tensor) {
  return tensor.grams.empty() && !tensor.spectral &&
      tensor.output.dtype == DType::kBF16 &&
      std::ranges::all_of(tensor.sources, [](const TensorSource& source) {
           return source.is_fisher ||
               (source.tensor.info().dtype == DType::kBF16 &&
                source.update == nullptr);
         });
}

} // namespace

template <typename Compute>
void ChunkMerger<Compute>::read(
    const TensorPlan& tensor,
    const Chunk& chunk,
    std::span<Digest> digests) {
  as_stored_ = std::is_same_v<Compute, float> && is_bfloat16(tensor) &&
      tensor.method->sparsify == Sparsify::kNone;
  reader_.read(tensor.sources, chunk, digests, as_stored_);
}

template <typename Compute>
void ChunkMerger<Compute>::set_scalars(
    const TensorPlan& tensor,
    size_t output,
    const TensorStatistics* statistics) {
  const TensorParameters& p = tensor.parameters[output];
  const std::vector<double>& weights =
      statistics != nullptr && !statistics->weights.empty()
      ? statistics->weights
      : p.weights;
  weights_.assign(weights.begin(), weights.end());
  normalize_fishers_ = p.normalize_fishers != 0;
  scales_.assign(tensor.num_models, 1);
  for (size_t t = 0; tensor.has_fishers() && t < tensor.num_models; ++t) {
    scales_[t] = fisher_scale(
        tensor,
        tensor.fisher(t),
        tensor.num_examples[t],
        p.fisher_scales.empty() ? 1 : p.fisher_scales[t]);
  }
  rhos_.assign(p.rho.begin(), p.rho.end());
  scalars_ = {
      .count = static_cast<int>(weights_.size()),
      .weights = weights_.data(),
      .scales = scales_.data(),
      .rhos = rhos_.empty() ? nullptr : rhos_.data(),
      .base_scale = tensor.has_base_fisher() ? fisher_scale(
                                                   tensor,
                                                   tensor.base_fisher(),
                                                   tensor.base_num_examples,
                                                   p.base_fisher_scale)
                                             : Compute(0),
      .delta = static_cast<Compute>(p.delta),
      .clamp = static_cast<Compute>(p.clamp),
      .floor = static_cast<Compute>(p.floor),
      .lambda = static_cast<Compute>(p.lambda),
      .normalize = p.normalize != 0};
}

// H = scale F: the factor of the recipe times N, or over the Fisher's mean.
template <typename Compute>
Compute ChunkMerger<Compute>::fisher_scale(
    const TensorPlan& tensor,
    size_t source,
    double num_examples,
    double factor) const {
  return static_cast<Compute>(
      factor *
      (normalize_fishers_ ? 1 / fisher_means_[tensor.sources[source].input]
                          : num_examples));
}

// Sparsifies the models' task vectors; returns true if they were finite before.
template <typename Compute>
bool ChunkMerger<Compute>::sparsify_models(
    const TensorPlan& tensor,
    const Chunk& chunk,
    size_t output,
    const TensorStatistics& statistics) {
  while (task_vectors_.size() < tensor.num_models) {
    task_vectors_.emplace_back(kChunkElements);
  }
  bool finite = true;
  for (size_t t = 0; t < tensor.num_models; ++t) {
    finite &= sparsify(
        tensor,
        chunk,
        {.model = t, .output = output, .statistics = statistics},
        reader_.values(tensor.base()),
        reader_.values(tensor.model(t)),
        task_vectors_[t].data());
  }
  return finite;
}

// Points at what was read, with the parameters as numbers of Stored, and sets
// `parameters` to the models' arrays.
template <typename Compute>
template <typename Stored>
MergeArrays<Compute, Stored> ChunkMerger<Compute>::arrays(
    const TensorPlan& tensor,
    std::vector<const Stored*>& parameters,
    Stored* out) {
  const MethodInfo& method = *tensor.method;
  const auto stored = [&](size_t source) {
    return reinterpret_cast<const Stored*>(reader_.values(source));
  };
  parameters.clear();
  fishers_.clear();
  if (method.weights == WeightRule::kSlerp) { // interpolates from the base
    parameters.push_back(stored(tensor.base()));
  }
  for (size_t t = 0; t < tensor.num_models; ++t) {
    parameters.push_back(stored(tensor.model(t)));
    if (tensor.has_fishers()) {
      fishers_.push_back(reader_.values(tensor.fisher(t)));
    }
  }
  return {
      .base = method.needs_base ? stored(tensor.base()) : nullptr,
      .base_fisher = tensor.has_base_fisher()
          ? reader_.values(tensor.base_fisher())
          : nullptr,
      .models = parameters.data(),
      .fishers = fishers_.data(),
      .out = out};
}

// Merges BFloat16 to BFloat16. Returns false if a value may have to be refused:
// the caller then merges numbers of Compute, which finds it.
template <typename Compute>
bool ChunkMerger<Compute>::merge_stored(
    const TensorPlan& tensor,
    const Chunk& chunk,
    std::span<std::byte> out,
    MergedChunk& merged) {
  if constexpr (std::is_same_v<Compute, float>) {
    const MergeFindings<Compute> found = merge_elements(
        tensor.method->formula,
        scalars_,
        arrays(
            tensor,
            stored_parameters_,
            reinterpret_cast<BFloat16*>(out.data())),
        chunk.n);
    merged.clamped = found.clamped;
    merged.largest_weight = found.largest_weight;
    return found.inputs_good &&
        found.largest < overflow_bound<Compute>(DType::kBF16);
  }
  return false;
}

template <typename Compute>
MergeFindings<Compute> ChunkMerger<Compute>::calculate(
    const TensorPlan& tensor,
    const Chunk& chunk,
    size_t output,
    const TensorStatistics* statistics) {
  if (statistics != nullptr && !statistics->merged.empty()) {
    return take_merged(
        chunk, [&](int64_t i) { return statistics->merged[chunk.begin + i]; });
  }
  if (statistics != nullptr && !statistics->update.empty()) {
    const Compute* base = reader_.values(tensor.base());
    const double lambda = tensor.parameters[output].lambda;
    return take_merged(chunk, [&](int64_t i) {
      return base[i] + lambda * statistics->update[chunk.begin + i];
    });
  }
  const MethodInfo& method = *tensor.method;
  MergeArrays<Compute, Compute> from = arrays(tensor, parameters_, merged_);
  bool finite = true;
  if (method.sparsify != Sparsify::kNone) {
    // The formula does not see dropped elements. Methods that drop have
    // statistics: NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker)
    finite = sparsify_models(tensor, chunk, output, *statistics);
    parameters_.clear();
    for (const auto& task_vector : task_vectors_) {
      parameters_.push_back(task_vector.data());
    }
    from.models = parameters_.data();
  }
  MergeFindings<Compute> found =
      merge_elements(method.formula, scalars_, from, chunk.n);
  found.inputs_good &= finite;
  return found;
}

// Takes a chunk of a tensor that has already been merged: value(i) of its
// elements i.
template <typename Compute>
template <typename Value>
MergeFindings<Compute> ChunkMerger<Compute>::take_merged(
    const Chunk& chunk,
    const Value& value) const {
  auto largest = magnitude_bits(Compute(0));
  for (int64_t i = 0; i < chunk.n; ++i) {
    merged_[i] = static_cast<Compute>(value(i));
    largest = std::max(largest, magnitude_bits(merged_[i]));
  }
  MergeFindings<Compute> found;
  found.largest = std::bit_cast<Compute>(largest);
  return found;
}

template <typename Compute>
MergedChunk ChunkMerger<Compute>::merge(
    const TensorPlan& tensor,
    const Chunk& chunk,
    size_t output,
    const TensorStatistics* statistics,
    std::span<std::byte> out) {
  MergedChunk merged;
  set_scalars(tensor, output, statistics);
  if (as_stored_) {
    if (merge_stored(tensor, chunk, out, merged)) {
      return merged;
    }
    reader_.convert_stored(tensor.sources, chunk.n);
    as_stored_ = false;
  }
  const DType dtype = tensor.output.dtype;
  const bool same = dtype == kTypeOf<Compute>;
  result_.resize(same ? 0 : kChunkElements);
  merged_ = same ? reinterpret_cast<Compute*>(out.data()) : result_.data();
  const MergeFindings<Compute> found =
      calculate(tensor, chunk, output, statistics);
  if (!found.inputs_good) {
    check_inputs(tensor, chunk);
  }
  merged.clamped = found.clamped;
  merged.largest_weight = static_cast<double>(found.largest_weight);
  if (!(found.largest < overflow_bound<Compute>(dtype))) {
    if (!allow_nonfinite_) {
      check_scaled_fishers(tensor, chunk);
    }
    merged.nonfinite = check_result(tensor, chunk);
  }
  if (!same) {
    convert_to(dtype, result_.data(), out.data(), chunk.n);
  }
  return merged;
}

// Throws for the first value that makes the inputs of the chunk invalid.
template <typename Compute>
void ChunkMerger<Compute>::check_inputs(
    const TensorPlan& tensor,
    const Chunk& chunk) {
  for (size_t s = 0; s < tensor.sources.size(); ++s) {
    const TensorSource& source = tensor.sources[s];
    const Compute* values = reader_.values(s);
    for (int64_t i = 0; i < chunk.n; ++i) {
      const Compute x = values[i];
      if ((!allow_nonfinite_ && !std::isfinite(x)) ||
          (source.is_fisher && x < 0)) {
        check_update(source);
        refuse_value(
            source.tensor,
            x,
            chunk.begin + i,
            source.is_fisher ? "a Fisher must be finite and not negative"
                             : "only finite values can be merged; merges of "
                               "files take others with --allow-nonfinite");
      }
    }
  }
}

template <typename Compute>
void ChunkMerger<Compute>::check_scaled_fishers(
    const TensorPlan& tensor,
    const Chunk& chunk) {
  const auto check = [&](size_t source, Compute scale) {
    check_scaled_fisher<Compute>(
        tensor.sources[source].tensor,
        std::span(reader_.values(source), chunk.n),
        chunk.begin,
        scale,
        normalize_fishers_);
  };
  if (tensor.has_base_fisher()) {
    check(tensor.base_fisher(), scalars_.base_scale);
  }
  for (size_t t = 0; tensor.has_fishers() && t < tensor.num_models; ++t) {
    check(tensor.fisher(t), scales_[t]);
  }
}

// Counts the values that the output's type cannot hold, or refuses the first.
template <typename Compute>
int64_t ChunkMerger<Compute>::check_result(
    const TensorPlan& tensor,
    const Chunk& chunk) const {
  const DType dtype = tensor.output.dtype;
  int64_t count = 0;
  for (int64_t i = 0; i < chunk.n; ++i) {
    if (std::abs(merged_[i]) < overflow_bound<Compute>(dtype)) {
      continue;
    }
    if (!allow_nonfinite_) {
      throw InputError(fmt::format(
          "tensor {} would be {} at index {}, which {} cannot represent; "
          "choose another out_dtype or smaller weights",
          quote(tensor.output.name),
          merged_[i],
          chunk.begin + i,
          dtype_name(dtype)));
    }
    ++count;
  }
  return count;
}

template class ChunkMerger<float>;
template class ChunkMerger<double>;

} // namespace merganser
