#include "merganser/recipe/parameter_values.h"

#include <fmt/format.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"

namespace merganser {
namespace {

struct ModelField {
  std::string_view name;
  std::vector<double> TensorParameters::*values;
};

constexpr ModelField kModelFields[] = {
    {"weight", &TensorParameters::weights},
    {"scale", &TensorParameters::weights},
    {"density", &TensorParameters::density},
    {"gamma", &TensorParameters::gamma},
    {"epsilon", &TensorParameters::epsilon},
    {"rho", &TensorParameters::rho},
    {"fisher_scale", &TensorParameters::fisher_scales},
};

struct MergeField {
  std::string_view name;
  double TensorParameters::*value;
};

constexpr MergeField kMergeFields[] = {
    {"base_fisher_scale", &TensorParameters::base_fisher_scale},
    {"fisher_power", &TensorParameters::fisher_power},
    {"delta", &TensorParameters::delta},
    {"clamp", &TensorParameters::clamp},
    {"floor", &TensorParameters::floor},
    {"shrink", &TensorParameters::shrink},
    {"lambda", &TensorParameters::lambda},
    {"off_diagonal", &TensorParameters::off_diagonal},
    {"ridge", &TensorParameters::ridge},
    {"normalize", &TensorParameters::normalize},
    {"normalize_fishers", &TensorParameters::normalize_fishers},
    {"average_buffers", &TensorParameters::average_buffers},
    {"rescale", &TensorParameters::rescale},
    {"seed", &TensorParameters::seed},
    {"t", &TensorParameters::t},
};

// Value from the first level that sets it for this tensor.
double resolve(
    const MethodInfo& method,
    const ParameterInfo& parameter,
    std::initializer_list<const Settings*> levels,
    std::string_view tensor,
    const TensorPlace& place,
    size_t output) {
  for (const Settings* level : levels) {
    const Setting* setting = find_setting(parameter.name, {level});
    const auto value = setting == nullptr
        ? std::nullopt
        : setting->at(tensor, place.depth, output);
    if (value) {
      return *value;
    }
  }
  if (!parameter.fallback) {
    throw InputError(fmt::format(
        "the method {} needs the parameter {} for tensor {}",
        method.name,
        parameter.name,
        quote(tensor)));
  }
  return *parameter.fallback;
}

// DELLA's probabilities range from density - epsilon to density + epsilon; with
// density 0 nothing is kept, with 1 everything.
void check_ranked(
    const MethodInfo& method,
    const TensorPlace& place,
    const TensorParameters& found) {
  for (size_t t = 0; t < found.epsilon.size(); ++t) {
    const double density = found.density[t];
    const double epsilon = found.epsilon[t];
    constexpr double kRounding = 1e-9;
    if (method.sparsify == Sparsify::kRanked && density > 0 && density < 1 &&
        (density - epsilon < -kRounding || density + epsilon > 1 + kRounding)) {
      throw InputError(fmt::format(
          "density {} and epsilon {} for tensor {}: density - epsilon and "
          "density + epsilon are probabilities and must be between 0 and 1",
          density,
          epsilon,
          quote(place.output)));
    }
  }
}

double sum_of(std::span<const double> weights) {
  double sum = 0;
  for (const double weight : weights) {
    sum += weight;
  }
  return sum;
}

} // namespace

bool weights_sum_to_zero(
    const MethodInfo& method,
    std::span<const double> weights,
    bool normalize) {
  // The other formulas also divide by the base's Fisher or Gram matrix.
  const bool divides = method.formula == MergeFormula::kFisher ||
      method.matrix == MatrixRule::kRegMean ||
      (normalize && method.formula == MergeFormula::kLinear);
  return divides && sum_of(weights) == 0;
}

std::vector<double> formula_weights(
    const MethodInfo& method,
    std::vector<double> weights,
    bool normalize,
    double lambda) {
  if (method.formula == MergeFormula::kSignElection) {
    return weights;
  }
  // mergekit does not divide by a sum close to 0, either.
  constexpr double kNothing = 1e-8;
  const double sum = sum_of(weights);
  const bool divides = normalize &&
      (method.formula == MergeFormula::kLinear || std::abs(sum) >= kNothing);
  const bool has_lambda = method.find_parameter("lambda") != nullptr;
  for (double& weight : weights) {
    weight = (has_lambda ? lambda : 1) * weight / (divides ? sum : 1);
  }
  return weights;
}

bool weights_are_auto(
    const std::vector<const Settings*>& models,
    const Settings& merge) {
  size_t any = 0;
  size_t all = 0;
  for (const Settings* model : models) {
    const Setting* weight = find_setting("weight", {model, &merge});
    const bool is_auto = weight != nullptr && weight->has_auto();
    any += is_auto ? 1 : 0;
    // A direction of the subspace has no weight of its own.
    all += weight == nullptr || (is_auto && weight->is_constant()) ? 1 : 0;
  }
  if (any > 0 && all < models.size()) {
    throw InputError(
        "weight: auto stands for the weights of all models and tensors; "
        "expected it for all, got other values");
  }
  return any > 0;
}

TensorParameters resolve_parameters(
    const MethodInfo& method,
    const Settings& merge,
    const std::vector<const Settings*>& models,
    const Settings& slice,
    const TensorPlace& place,
    size_t output) {
  TensorParameters found;
  for (const auto& [name, values] : kModelFields) {
    const ParameterInfo* parameter = method.find_parameter(name);
    for (size_t t = 0; parameter != nullptr && t < models.size(); ++t) {
      (found.*values)
          .push_back(resolve(
              method,
              *parameter,
              {models[t], &slice, &merge},
              place.in_models[t],
              place,
              output));
    }
  }
  for (const auto& [name, value] : kMergeFields) {
    if (const ParameterInfo* parameter = method.find_parameter(name)) {
      found.*value = resolve(
          method, *parameter, {&slice, &merge}, place.output, place, output);
    }
  }
  const bool normalize = found.normalize != 0;
  if (weights_sum_to_zero(method, found.weights, normalize)) {
    throw InputError(fmt::format(
        "the weights of the models sum to 0 for tensor {}",
        quote(place.output)));
  }
  check_ranked(method, place, found);
  found.weights =
      formula_weights(method, found.weights, normalize, found.lambda);
  if (method.weights == WeightRule::kMean) {
    const auto count = static_cast<double>(models.size());
    found.weights.assign(models.size(), found.lambda / count);
  }
  return found;
}

double constant_parameter(
    const MethodInfo& method,
    std::string_view name,
    std::initializer_list<const Settings*> levels,
    size_t output) {
  const Setting* setting = find_setting(name, levels);
  if (setting == nullptr) {
    return method.fallback(name);
  }
  if (!setting->is_constant() && !setting->is_sweep()) {
    throw InputError(fmt::format(
        "{}: the method {} expects one {} for all tensors",
        setting->to_yaml(),
        method.name,
        name));
  }
  return *setting->at("", 0, output);
}

} // namespace merganser
