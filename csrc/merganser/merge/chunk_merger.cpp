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

// Parameters and output: those need no pass of their own to be converted.
bool is_bfloat16(const TensorPlan& tensor) {
  return tensor.grams.empty() && tensor.output.dtype == DType::kBF16 &&
      std::ranges::all_of(tensor.sources, [](const TensorSource& source) {
           return source.is_fisher ||
               (source.tensor.info().dtype == DType::kBF16 &&
                source.update == nullptr);
         });
}

} // namespace

template <typename T>
void ChunkMerger<T>::read(
    const TensorPlan& tensor,
    const Chunk& chunk,
    std::span<Digest> digests) {
  as_stored_ = std::is_same_v<T, float> && is_bfloat16(tensor) &&
      plan_.recipe.method->sparsify == Sparsify::kNone;
  reader_.read(tensor.sources, chunk, digests, as_stored_);
}

template <typename T>
void ChunkMerger<T>::set_scalars(
    const TensorPlan& tensor,
    size_t output,
    const TensorStatistics* statistics) {
  const TensorParameters& p = tensor.parameters[output];
  const std::vector<double>& weights =
      statistics != nullptr && !statistics->weights.empty()
      ? statistics->weights
      : p.weights;
  weights_.assign(weights.begin(), weights.end());
  scales_.assign(tensor.scales.begin(), tensor.scales.end());
  scalars_ = {
      .count = static_cast<int>(weights_.size()),
      .weights = weights_.data(),
      .scales = scales_.data(),
      .base_scale = static_cast<T>(plan_.base_scale),
      .delta = static_cast<T>(p.delta),
      .clamp = static_cast<T>(p.clamp),
      .floor = static_cast<T>(p.floor),
      .lambda = static_cast<T>(p.lambda),
      .normalize = p.normalize != 0};
  if (p.normalize_fishers != 0) {
    normalize_fishers(tensor);
  }
}

// The Fishers' scales are one over their means.
template <typename T>
void ChunkMerger<T>::normalize_fishers(const TensorPlan& tensor) {
  bool base = plan_.recipe.method->needs_base_fisher; // comes first
  size_t t = 0;
  for (const TensorSource& source : tensor.sources) {
    if (source.is_fisher) {
      const auto scale = static_cast<T>(1 / fisher_means_[source.input]);
      (base ? scalars_.base_scale : scales_[t++]) = scale;
      base = false;
    }
  }
}

// The models' sparsified task vectors; returns whether the whole ones are
// finite.
template <typename T>
bool ChunkMerger<T>::sparsify_models(
    const TensorPlan& tensor,
    const Chunk& chunk,
    size_t output,
    const TensorStatistics& statistics) {
  const size_t models = tensor.scales.size();
  while (task_vectors_.size() < models) {
    task_vectors_.emplace_back(kChunkElements);
  }
  bool finite = true;
  for (size_t t = 0; t < models; ++t) {
    finite &= sparsify(
        plan_,
        tensor,
        chunk,
        {.model = t, .output = output, .statistics = statistics},
        reader_.values(0),
        reader_.values(1 + t),
        task_vectors_[t].data());
  }
  return finite;
}

// `parameters` is set to where they are, as P.
template <typename T>
template <typename P>
MergeArrays<T, P> ChunkMerger<T>::arrays(
    const TensorPlan& tensor,
    std::vector<const P*>& parameters,
    P* out) {
  const MethodInfo& method = *plan_.recipe.method;
  parameters.clear();
  fishers_.clear();
  for (size_t s = 0; s < tensor.sources.size(); ++s) {
    if (tensor.sources[s].is_fisher) {
      fishers_.push_back(reader_.values(s));
    } else {
      parameters.push_back(reinterpret_cast<const P*>(reader_.values(s)));
    }
  }
  MergeArrays<T, P> arrays;
  arrays.out = out;
  arrays.models = parameters.data();
  arrays.fishers = fishers_.data();
  if (method.needs_base) {
    arrays.base = parameters[0];
    // Between base and model: the base is one of the models.
    arrays.models += method.weights != WeightRule::kSlerp;
  }
  if (method.needs_base_fisher) {
    arrays.base_fisher = *arrays.fishers++;
  }
  return arrays;
}

// Of BFloat16 to BFloat16. False where there is something to look at, which is
// done with numbers of T.
template <typename T>
bool ChunkMerger<T>::merge_stored(
    const TensorPlan& tensor,
    const Chunk& chunk,
    std::span<std::byte> out,
    int64_t& clamped) {
  if constexpr (std::is_same_v<T, float>) {
    const MergeFindings<T> found = merge_elements(
        plan_.recipe.method->formula,
        scalars_,
        arrays(
            tensor,
            stored_parameters_,
            reinterpret_cast<BFloat16*>(out.data())),
        chunk.n);
    clamped = found.clamped;
    return found.inputs_good && found.largest < overflow_bound<T>(DType::kBF16);
  }
  return false;
}

template <typename T>
MergeFindings<T> ChunkMerger<T>::calculate(
    const TensorPlan& tensor,
    const Chunk& chunk,
    size_t output,
    const TensorStatistics* statistics) {
  const MethodInfo& method = *plan_.recipe.method;
  MergeArrays<T, T> from = arrays(tensor, parameters_, merged_);
  bool finite = true;
  if (method.sparsify != Sparsify::kNone) {
    // The formula does not see what was dropped.
    finite = sparsify_models(tensor, chunk, output, *statistics);
    parameters_.clear();
    for (const auto& task_vector : task_vectors_) {
      parameters_.push_back(task_vector.data());
    }
    from.models = parameters_.data();
  }
  MergeFindings<T> found =
      merge_elements(method.formula, scalars_, from, chunk.n);
  found.inputs_good &= finite;
  return found;
}

// Of a tensor that is merged already.
template <typename T>
MergeFindings<T> ChunkMerger<T>::take(
    const std::vector<double>& merged,
    const Chunk& chunk) const {
  auto most = magnitude_bits(T(0));
  for (int64_t i = 0; i < chunk.n; ++i) {
    merged_[i] = static_cast<T>(merged[chunk.begin + i]);
    most = std::max(most, magnitude_bits(merged_[i]));
  }
  MergeFindings<T> found;
  found.largest = std::bit_cast<T>(most);
  return found;
}

template <typename T>
MergedChunk ChunkMerger<T>::merge(
    const TensorPlan& tensor,
    const Chunk& chunk,
    size_t output,
    const TensorStatistics* statistics,
    std::span<std::byte> out) {
  MergedChunk merged;
  set_scalars(tensor, output, statistics);
  if (as_stored_) {
    if (merge_stored(tensor, chunk, out, merged.clamped)) {
      return merged;
    }
    reader_.convert_stored(tensor.sources, chunk.n);
    as_stored_ = false;
  }
  const DType dtype = tensor.output.dtype;
  const bool same = dtype == kTypeOf<T>;
  result_.resize(same ? 0 : kChunkElements);
  merged_ = same ? reinterpret_cast<T*>(out.data()) : result_.data();
  const MergeFindings<T> found =
      statistics != nullptr && !statistics->merged.empty()
      ? take(statistics->merged, chunk)
      : calculate(tensor, chunk, output, statistics);
  if (!found.inputs_good) {
    check_inputs(tensor, chunk);
  }
  merged.clamped = found.clamped;
  if (!(found.largest < overflow_bound<T>(dtype))) {
    if (!allow_nonfinite_) {
      refuse_large_fishers(plan_, tensor, chunk, reader_);
    }
    merged.nonfinite = check_result(tensor, chunk);
  }
  if (!same) {
    convert_to(dtype, result_.data(), out.data(), chunk.n);
  }
  return merged;
}

// The pass over the chunk found that something is wrong; this finds where.
template <typename T>
void ChunkMerger<T>::check_inputs(
    const TensorPlan& tensor,
    const Chunk& chunk) {
  for (size_t s = 0; s < tensor.sources.size(); ++s) {
    const TensorSource& source = tensor.sources[s];
    const T* values = reader_.values(s);
    for (int64_t i = 0; i < chunk.n; ++i) {
      const T x = values[i];
      if ((!allow_nonfinite_ && !std::isfinite(x)) ||
          (source.is_fisher && x < 0)) {
        refuse_bad_update(source);
        refuse_value(
            source.tensor,
            x,
            chunk.begin + i,
            source.is_fisher ? "a Fisher is finite and not negative"
                             : "only finite values can be merged");
      }
    }
  }
}

// The number of values that the output's type cannot hold, where those are
// allowed.
template <typename T>
int64_t ChunkMerger<T>::check_result(
    const TensorPlan& tensor,
    const Chunk& chunk) const {
  const DType dtype = tensor.output.dtype;
  int64_t count = 0;
  for (int64_t i = 0; i < chunk.n; ++i) {
    if (std::abs(merged_[i]) < overflow_bound<T>(dtype)) {
      continue;
    }
    if (!allow_nonfinite_) {
      throw InputError(fmt::format(
          "tensor {} would be {} at index {}, which {} cannot hold; choose "
          "another out_dtype or smaller weights",
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
