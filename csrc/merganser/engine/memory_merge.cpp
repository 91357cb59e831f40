#include "merganser/engine/memory_merge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/engine/merge_tensor.h"
#include "merganser/plan/measured_rho.h"
#include "merganser/plan/name_map.h"
#include "merganser/plan/subspace_weights.h"
#include "merganser/recipe/layer_name.h"
#include "merganser/recipe/methods.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

// Refuses other methods' parameters. A recipe may keep them when its method
// changes; here they can only be a mistake.
void check_parameter(const MethodInfo& method, std::string_view name) {
  if (method.find_parameter(name) != nullptr) {
    return;
  }
  std::vector<std::string_view> names;
  for (const ParameterInfo& parameter : method.parameters) {
    names.push_back(parameter.name);
  }
  throw InputError(fmt::format(
      "method {} has no parameter {}; available: {}",
      method.name,
      name,
      names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

Settings parse(
    const YamlValue& mapping,
    const MethodInfo& method,
    ParameterInfo::Scope scope) {
  Settings settings = parse_settings(mapping, method, scope);
  for (const auto& [name, setting] : settings) {
    check_parameter(method, name);
    if (setting.is_sweep()) {
      throw InputError(fmt::format(
          "{} is a sweep, which has several outputs; merge a recipe instead",
          name));
    }
  }
  return settings;
}

// The name of model t's Fisher in errors; nullopt: of the base's.
std::filesystem::path fisher_label(std::optional<size_t> t) {
  return t ? fmt::format("fishers[{}]", *t) : "base_fisher";
}

// Refers to the data of `from`.
TensorSource source_of(const MemoryTensor& from, size_t input = 0) {
  return {StoredTensor(from.data, from.info, from.label), input};
}

// Appends sources [begin, end) of a list.
void add_sources(
    const std::vector<MemoryTensor>& from,
    size_t begin,
    size_t end,
    bool are_fishers,
    std::vector<TensorSource>& to,
    double power = 1) {
  for (size_t i = begin; i < end; ++i) {
    to.push_back(source_of(from[i], i));
    to.back().is_fisher = are_fishers;
    to.back().power = power;
  }
}

} // namespace

MemoryMerge::MemoryMerge(
    std::string_view method,
    const YamlValue& parameters,
    const std::vector<YamlValue>& models,
    const std::vector<std::string>& names,
    MemoryExamples examples,
    const std::optional<SubspaceFisher>& subspace)
    : method_(find_method(method)),
      examples_(std::move(examples)),
      means_(examples_.fishers.size()),
      labels_(examples_.fishers.size()) {
  check_count(method_, static_cast<int>(models.size()));
  parameters_ = parse(parameters, method_, ParameterInfo::Scope::kMerge);
  for (const YamlValue& model : models) {
    models_.push_back(parse(model, method_, ParameterInfo::Scope::kModel));
  }
  const std::vector<double> depths = layer_depths(names);
  read_rhos();
  read_scales();
  for (size_t i = 0; i < names.size(); ++i) {
    depths_.emplace(names[i], depths[i]);
  }
  const bool is_auto = method_.find_parameter("weight") != nullptr &&
      weights_are_auto(model_settings(), parameters_);
  if (method_.needs_subspace || is_auto) {
    if (!subspace) {
      throw InputError(fmt::format(
          "{} needs a subspace Fisher",
          is_auto ? "weight: auto" : fmt::format("method {}", method_.name)));
    }
    solve(is_auto ? subspace->as_one_group() : *subspace);
  }
}

std::vector<const Settings*> MemoryMerge::model_settings() const {
  std::vector<const Settings*> settings;
  for (const Settings& model : models_) {
    settings.push_back(&model);
  }
  return settings;
}

void MemoryMerge::solve(const SubspaceFisher& subspace) {
  const size_t num_experts = subspace.experts.size();
  if (num_experts != models_.size()) {
    throw InputError(fmt::format(
        "expected a subspace Fisher of {} models, got {}: the experts, and "
        "after them the directions that it was estimated with",
        models_.size(),
        num_experts));
  }
  for (size_t t = 0; t < num_experts; ++t) {
    check_no_weight(
        subspace.experts[t], models_[t], fmt::format("models[{}]", t));
  }
  std::vector<size_t> experts(num_experts);
  std::iota(experts.begin(), experts.end(), size_t{0});
  const SubspaceWeights found = solve_subspace(
      subspace, experts, method_, model_settings(), parameters_, 0);
  unstable_ = unstable(found);
  const size_t num_groups = subspace.groups.size();
  for (size_t g = 0; g < num_groups; ++g) {
    for (const std::string& tensor : subspace.groups[g].tensors) {
      for (size_t t = 0; t < num_experts; ++t) {
        subspace_weights_[tensor].push_back(found.weights[t * num_groups + g]);
      }
    }
  }
}

// Statistics and Fishers begin with the base's.
void MemoryMerge::read_rhos() {
  rhos_.resize(models_.size());
  for (size_t t = 0;
       method_.find_parameter("rho") != nullptr && t < models_.size();
       ++t) {
    const auto& found = examples_.task_vectors;
    if (t + 1 < found.size() && found[t + 1]) {
      rhos_[t] =
          measured_rho(*found[t + 1], num_examples(t + 1), num_examples(0));
      const auto reason = unstable_rho(*rhos_[t]);
      if (reason && takes_measured_rho(models_[t], parameters_)) {
        unstable_rhos_.push_back(fmt::format("fishers[{}]: {}", t, *reason));
      }
    }
  }
}

void MemoryMerge::read_scales() {
  const size_t first = method_.needs_base_fisher;
  const auto scale_of = [&](size_t fisher) {
    const auto& found = examples_.scales;
    return fisher < found.size() && found[fisher]
        ? std::optional(found[fisher]->scale)
        : std::nullopt;
  };
  if (first == 1) {
    scales_.base = scale_of(0);
  }
  for (size_t t = 0; t < models_.size(); ++t) {
    scales_.models.push_back(scale_of(first + t));
  }
}

TensorParameters MemoryMerge::parameters_of(const std::string& name) const {
  const auto found = depths_.find(name);
  if (found == depths_.end()) {
    throw InputError(fmt::format("unknown tensor '{}'", name));
  }
  const std::vector<const Settings*> models = model_settings();
  const TensorPlace place = {
      name, std::vector<std::string>(models.size(), name), found->second};
  TensorParameters parameters =
      resolve_parameters(method_, parameters_, models, {}, place, 0);
  replace_auto(parameters.rho, rhos_, fisher_label);
  replace_auto_scales(parameters, scales_, fisher_label);
  if (!subspace_weights_.empty()) {
    const auto weights = subspace_weights_.find(name);
    if (weights == subspace_weights_.end()) {
      throw InputError(
          fmt::format("the subspace Fisher lacks tensor '{}'", name));
    }
    parameters.weights = formula_weights(
        method_, weights->second, parameters.normalize != 0, parameters.lambda);
  }
  return parameters;
}

bool MemoryMerge::normalizes_fishers(const std::string& name) const {
  return parameters_of(name).normalize_fishers != 0;
}

double MemoryMerge::fisher_power(const std::string& name) const {
  return parameters_of(name).fisher_power;
}

void MemoryMerge::add_fisher(
    size_t fisher,
    const MemoryTensor& tensor,
    int threads) {
  TensorSource source = source_of(tensor);
  source.power = parameters_of(tensor.info.name).fisher_power;
  means_.at(fisher).add(source, thread_count(threads));
  labels_[fisher] = tensor.label;
}

double MemoryMerge::num_examples(size_t fisher) const {
  return method_.needs_num_examples ? examples_.fishers[fisher] : 1;
}

MemoryScalars MemoryMerge::scalars(const std::string& name) const {
  MemoryScalars found;
  found.parameters = parameters_of(name);
  const TensorParameters& p = found.parameters;
  const auto scale = [&](size_t fisher) {
    return p.normalize_fishers != 0 ? 1 / means_[fisher].mean(labels_[fisher])
                                    : num_examples(fisher);
  };
  const size_t first = method_.needs_base_fisher;
  if (first == 1) {
    found.base_scale = p.base_fisher_scale * scale(0);
  }
  for (size_t f = first; f < examples_.fishers.size(); ++f) {
    found.scales.push_back(
        (p.fisher_scales.empty() ? 1 : p.fisher_scales[f - first]) * scale(f));
  }
  return found;
}

TensorPlan MemoryMerge::plan(
    const TensorInfo& output,
    const MemorySources& from) const {
  TensorPlan tensor;
  tensor.method = &method_;
  tensor.output = output;
  tensor.drawn_as = output.name;
  tensor.num_models = models_.size();
  tensor.parameters = {parameters_of(output.name)};
  for (size_t g = 0; g < from.grams.size(); ++g) {
    tensor.grams.push_back({source_of(from.grams[g]), examples_.grams[g]});
  }
  for (size_t t = 0; from.task_vectors_from && t < tensor.num_models; ++t) {
    tensor.grams.push_back(
        {.matrix = source_of(*from.task_vectors_from),
         .num_examples = method_.needs_fishers
             ? num_examples(method_.needs_base_fisher + t)
             : 1,
         .of_task_vector = true});
  }
  if (tensor.has_fishers() && from.fishers.empty()) {
    plan_average(tensor);
  }
  const size_t base = method_.needs_base;
  const size_t base_fisher = tensor.has_base_fisher();
  add_sources(from.weights, 0, base, false, tensor.sources);
  const double power = tensor.parameters.front().fisher_power;
  add_sources(from.fishers, 0, base_fisher, true, tensor.sources, power);
  add_sources(from.weights, base, from.weights.size(), false, tensor.sources);
  if (tensor.has_fishers()) {
    add_sources(
        from.fishers,
        base_fisher,
        from.fishers.size(),
        true,
        tensor.sources,
        power);
    tensor.base_num_examples = base_fisher == 1 ? num_examples(0) : 0;
    for (size_t t = 0; t < tensor.num_models; ++t) {
      tensor.num_examples.push_back(num_examples(base_fisher + t));
    }
  }
  tensor.spectral = method_.is_spectral() && is_spectral(output);
  tensor.float64 = !tensor.grams.empty() || tensor.spectral;
  for (const TensorSource& source : tensor.sources) {
    tensor.float64 |= source.tensor.info().dtype == DType::kF64;
  }
  return tensor;
}

// Means of the tensor's Fishers, by TensorSource::input; empty where its
// parameters do not ask for them.
std::vector<double> MemoryMerge::fisher_means(const TensorPlan& tensor) const {
  std::vector<double> means;
  if (tensor.has_fishers() && tensor.parameters[0].normalize_fishers != 0) {
    for (size_t f = 0; f < means_.size(); ++f) {
      means.push_back(means_[f].mean(labels_[f]));
    }
  }
  return means;
}

void MemoryMerge::merge(
    const TensorInfo& output,
    const MemorySources& sources,
    std::span<std::byte> out,
    int threads) const {
  const TensorPlan tensor = plan(output, sources);
  const std::vector<double> means = fisher_means(tensor);
  merge_tensor(tensor, 0, means, out, thread_count(threads));
}

} // namespace merganser
