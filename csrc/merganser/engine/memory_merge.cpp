#include "merganser/engine/memory_merge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/merge/chunk_merger.h"
#include "merganser/plan/tensor_planner.h"
#include "merganser/recipe/layer_name.h"
#include "merganser/recipe/methods.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

// A recipe keeps the parameters of other methods when its method is changed;
// here they can only be a mistake.
void check_parameter(const MethodInfo& method, std::string_view name) {
  if (method.find_parameter(name) != nullptr) {
    return;
  }
  std::vector<std::string_view> names;
  for (const ParameterInfo& parameter : method.parameters) {
    names.push_back(parameter.name);
  }
  throw InputError(fmt::format(
      "the method {} has no parameter {}; it has {}",
      method.name,
      name,
      names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

Settings parse(
    const std::string& yaml,
    const std::string& label,
    const MethodInfo& method,
    ParameterInfo::Scope scope) {
  Settings settings =
      parse_settings(YamlValue::parse(yaml, label), method, scope);
  for (const auto& [name, setting] : settings) {
    check_parameter(method, name);
    if (setting.is_sweep()) {
      throw InputError(fmt::format(
          "{} is a sweep, which has several outputs: merge a recipe", name));
    }
  }
  return settings;
}

// `tensor` refers to `from`.
TensorSource source_of(const MemoryTensor& from, bool is_fisher) {
  TensorSource source = {StoredTensor(from.data, from.info, from.label)};
  source.is_fisher = is_fisher;
  return source;
}

// In the order of a plan's.
std::vector<TensorSource> plan_sources(
    const MethodInfo& method,
    const MemorySources& from) {
  std::vector<TensorSource> sources;
  const auto add = [&](std::span<const MemoryTensor> tensors, bool is_fisher) {
    for (const MemoryTensor& tensor : tensors) {
      sources.push_back(source_of(tensor, is_fisher));
    }
  };
  const std::span weights(from.weights);
  const std::span fishers(from.fishers);
  const size_t base = method.needs_base;
  const size_t base_fisher = method.needs_base_fisher && !fishers.empty();
  add(weights.first(base), false);
  add(fishers.first(base_fisher), true);
  add(weights.subspan(base), false);
  add(fishers.subspan(base_fisher), true);
  return sources;
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
    const std::vector<std::string>& names,
    MemoryExamples examples)
    : examples_(std::move(examples)),
      means_(examples_.fishers.size()),
      labels_(examples_.fishers.size()) {
  const MethodInfo& info = find_method(method);
  check_count(info, static_cast<int>(models.size()));
  plan_.recipe.method = &info;
  plan_.recipe.parameters =
      parse(parameters, "parameters", info, ParameterInfo::Scope::kMerge);
  for (size_t t = 0; t < models.size(); ++t) {
    models_.push_back(parse(
        models[t],
        fmt::format("weights[{}]", t),
        info,
        ParameterInfo::Scope::kModel));
  }
  plan_.outputs = {""};
  const std::vector<double> depths = layer_depths(names);
  for (size_t i = 0; i < names.size(); ++i) {
    depths_.emplace(names[i], depths[i]);
  }
}

TensorParameters MemoryMerge::parameters_of(const std::string& name) const {
  const auto found = depths_.find(name);
  if (found == depths_.end()) {
    throw InputError(fmt::format("there is no tensor '{}'", name));
  }
  std::vector<const Settings*> models;
  for (const Settings& model : models_) {
    models.push_back(&model);
  }
  const TensorPlace place = {
      name, std::vector<std::string>(models.size(), name), found->second};
  return resolve_parameters(plan_.recipe, models, {}, place, 0);
}

bool MemoryMerge::normalizes_fishers(const std::string& name) const {
  return parameters_of(name).normalize_fishers != 0;
}

void MemoryMerge::add_fisher(
    size_t fisher,
    const MemoryTensor& tensor,
    int threads) {
  means_.at(fisher).add(source_of(tensor, true), thread_count(threads));
  labels_[fisher] = tensor.label;
}

// N, or one over the Fisher's mean.
double MemoryMerge::fisher_scale(
    const TensorParameters& parameters,
    size_t fisher) const {
  if (parameters.normalize_fishers != 0) {
    return 1 / means_[fisher].mean(labels_[fisher]);
  }
  return plan_.recipe.method->needs_num_examples ? examples_.fishers[fisher]
                                                 : 1;
}

MemoryScalars MemoryMerge::scalars(const std::string& name) const {
  MemoryScalars found;
  found.parameters = parameters_of(name);
  size_t fisher = 0;
  if (plan_.recipe.method->needs_base_fisher) {
    found.base_scale = fisher_scale(found.parameters, fisher++);
  }
  while (fisher < examples_.fishers.size()) {
    found.scales.push_back(fisher_scale(found.parameters, fisher++));
  }
  return found;
}

void MemoryMerge::merge(
    const TensorInfo& output,
    const MemorySources& sources,
    std::span<std::byte> out,
    int threads) {
  const MethodInfo& method = *plan_.recipe.method;
  TensorPlan tensor;
  tensor.output = output;
  tensor.sources = plan_sources(method, sources);
  tensor.scales.assign(models_.size(), 1);
  if (sources.fishers.empty()) {
    tensor.parameters = {parameters_of(output.name)};
  } else {
    MemoryScalars scalars = this->scalars(output.name);
    tensor.scales = std::move(scalars.scales);
    plan_.base_scale = scalars.base_scale;
    scalars.parameters.normalize_fishers = 0; // the scales are as it says
    tensor.parameters = {std::move(scalars.parameters)};
  }
  for (size_t g = 0; g < sources.grams.size(); ++g) {
    tensor.grams.push_back(
        {source_of(sources.grams[g], false), examples_.grams[g]});
  }
  tensor.float64 = !tensor.grams.empty();
  for (const TensorSource& source : tensor.sources) {
    tensor.float64 |= source.tensor.info().dtype == DType::kF64;
  }
  const bool is_copy = keeps_bytes(method, tensor);
  plan_.tensors = {std::move(tensor)};

  threads = thread_count(threads);
  const TensorStatistics statistics = measure_tensor(plan_, 0, 0, threads);
  if (plan_.tensors.front().float64) {
    merge_chunks<double>(plan_, statistics, out, threads);
  } else {
    merge_chunks<float>(plan_, statistics, out, threads);
  }
  if (is_copy) { // looked at like all others
    std::ranges::copy(sources.weights[0].data, out.begin());
  }
}

} // namespace merganser
