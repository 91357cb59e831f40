#include "merge/memory_merge.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/error.h"
#include "io/parallel.h"
#include "merge/chunk_merger.h"
#include "merge/layer_name.h"
#include "merge/recipe_options.h"

namespace merganser {
namespace {

Settings parse(
    const std::string& yaml,
    const MethodInfo& method,
    ParameterInfo::Scope scope) {
  Settings settings =
      parse_settings(YamlValue::parse(yaml, "parameters"), method, scope);
  for (const auto& [name, setting] : settings) {
    if (setting.is_sweep()) {
      throw InputError(fmt::format(
          "{} is a sweep, which has several outputs: merge a recipe", name));
    }
  }
  return settings;
}

template <typename T>
void merge_chunks(
    const MergePlan& plan,
    const TensorStatistics& statistics,
    std::span<std::byte> out,
    int threads) {
  const TensorPlan& tensor = plan.tensors.front();
  const uint64_t width = dtype_bits(tensor.output.dtype) / 8;
  const ChunkList chunks(plan, {0});
  std::vector<ChunkMerger<T>> mergers(threads, {plan, {}, false});
  parallel_for(threads, chunks.size(), [&](int64_t i, int worker) {
    const Chunk chunk = chunks[i];
    std::vector<Digest> ignored(tensor.sources.size());
    mergers[worker].read(tensor, chunk, ignored);
    mergers[worker].merge(
        tensor,
        chunk,
        0,
        &statistics,
        out.subspan(chunk.begin * width, chunk.n * width));
  });
}

} // namespace

MemoryMerge::MemoryMerge(
    std::string_view method,
    const std::string& parameters,
    const std::vector<std::string>& models,
    const std::vector<std::string>& names)
    : names_(names), depths_(layer_depths(names)) {
  const MethodInfo& info = find_method(method);
  if (info.needs_grams()) {
    throw InputError(fmt::format(
        "{} takes Gram matrices, which are read from files: merge a recipe",
        method));
  }
  check_count(info, static_cast<int>(models.size()));
  plan_.recipe.method = &info;
  plan_.recipe.parameters =
      parse(parameters, info, ParameterInfo::Scope::kMerge);
  for (const std::string& model : models) {
    models_.push_back(parse(model, info, ParameterInfo::Scope::kModel));
  }
  plan_.outputs = {""};
}

double MemoryMerge::depth_of(const std::string& name) const {
  const auto found = std::ranges::find(names_, name);
  if (found == names_.end()) {
    throw InputError(fmt::format("there is no tensor '{}'", name));
  }
  return depths_[found - names_.begin()];
}

void MemoryMerge::merge(
    const TensorInfo& output,
    std::span<const MemoryTensor> sources,
    std::span<std::byte> out,
    int threads) {
  std::vector<TensorInfo> infos(sources.size(), output);
  TensorPlan tensor;
  tensor.output = output;
  for (size_t s = 0; s < sources.size(); ++s) {
    infos[s].dtype = sources[s].dtype;
    tensor.float64 |= sources[s].dtype == DType::kF64;
    tensor.sources.push_back(
        {StoredTensor(sources[s].data, infos[s], sources[s].label)});
  }
  std::vector<const Settings*> models;
  for (const Settings& model : models_) {
    models.push_back(&model);
  }
  tensor.scales.assign(models.size(), 1);
  const std::vector<std::string> same(models.size(), output.name);
  tensor.parameters = {resolve_parameters(
      plan_.recipe, models, {}, {output.name, same, depth_of(output.name)}, 0)};
  plan_.tensors = {std::move(tensor)};

  threads = thread_count(threads);
  const TensorStatistics statistics = measure_tensor(plan_, 0, 0, threads);
  if (plan_.tensors.front().float64) {
    merge_chunks<double>(plan_, statistics, out, threads);
  } else {
    merge_chunks<float>(plan_, statistics, out, threads);
  }
}

} // namespace merganser
