#include "merganser/merge/value_errors.h"

#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/merge/arithmetic.h"
#include "merganser/merge/chunk_reader.h"

namespace merganser {

void refuse_nonfinite(const StoredTensor& tensor, std::string_view why) {
  const TensorInfo& info = tensor.info();
  std::vector<std::byte> bytes(info.bytes());
  tensor.read(bytes);
  std::vector<double> values(info.numel());
  to_float64(info.dtype, bytes.data(), values.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      refuse_value(tensor, values[i], static_cast<int64_t>(i), why);
    }
  }
}

void refuse_bad_update(const TensorSource& source) {
  if (source.update != nullptr) {
    const char* why = "only adapters of finite values can be merged";
    refuse_nonfinite(source.update->a, why);
    refuse_nonfinite(source.update->b, why);
  }
}

template <typename T>
void refuse_large_fishers(
    const MergePlan& plan,
    const TensorPlan& tensor,
    const Chunk& chunk,
    ChunkReader<T>& reader) {
  bool base = plan.recipe.method->needs_base_fisher; // comes first
  size_t model = 0;
  for (size_t s = 0; s < tensor.sources.size(); ++s) {
    if (!tensor.sources[s].is_fisher) {
      continue;
    }
    const auto n =
        static_cast<T>(base ? plan.base_scale : tensor.scales[model++]);
    base = false;
    const StoredTensor& fisher = tensor.sources[s].tensor;
    for (int64_t i = 0; i < chunk.n; ++i) {
      if (!std::isfinite(n * reader.values(s)[i])) {
        throw InputError(fmt::format(
            "{}: tensor {} is {} at index {}, which times {} examples is more "
            "than {} holds: give the recipe dtype: float64 (and the out_dtype "
            "that you want), or normalize_fishers: true in its parameters",
            fisher.file().string(),
            quote(fisher.info().name),
            reader.values(s)[i],
            chunk.begin + i,
            n,
            dtype_name(kTypeOf<T>)));
      }
    }
  }
}

template void refuse_large_fishers(
    const MergePlan&,
    const TensorPlan&,
    const Chunk&,
    ChunkReader<float>&);
template void refuse_large_fishers(
    const MergePlan&,
    const TensorPlan&,
    const Chunk&,
    ChunkReader<double>&);

} // namespace merganser
