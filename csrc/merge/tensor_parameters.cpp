#include "merge/tensor_parameters.h"

#include <fmt/format.h>

#include <cmath>

#include "io/error.h"
#include "io/quote.h"
#include "merge/recipe_options.h"

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
};

struct MergeField {
  std::string_view name;
  double TensorParameters::*value;
};

constexpr MergeField kMergeFields[] = {
    {"delta", &TensorParameters::delta},
    {"clamp", &TensorParameters::clamp},
    {"floor", &TensorParameters::floor},
    {"lambda", &TensorParameters::lambda},
    {"off_diagonal", &TensorParameters::off_diagonal},
    {"ridge", &TensorParameters::ridge},
    {"normalize", &TensorParameters::normalize},
    {"rescale", &TensorParameters::rescale},
    {"seed", &TensorParameters::seed},
    {"t", &TensorParameters::t},
};

// Of the first level with a value for this tensor.
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

// Division by the sum and multiplication by lambda, where the formula leaves
// them to the weights.
void finish_weights(
    const MethodInfo& method,
    const TensorPlace& place,
    TensorParameters& found) {
  double sum = 0;
  for (const double weight : found.weights) {
    sum += weight;
  }
  const bool normalize = found.normalize != 0;
  if (sum == 0 &&
      (method.needs_fishers || method.needs_grams() ||
       (normalize && method.formula == MergeFormula::kLinear))) {
    throw InputError(fmt::format(
        "the weights of the models sum to 0 for tensor {}",
        quote(place.output)));
  }
  if (method.formula == MergeFormula::kSignElection) {
    return;
  }
  // As in mergekit: task vectors that cancel are not blown up.
  constexpr double kNothing = 1e-8;
  const bool divides = normalize &&
      (method.formula == MergeFormula::kLinear || std::abs(sum) >= kNothing);
  const double divisor = divides ? sum : 1;
  const bool has_lambda = method.find_parameter("lambda") != nullptr;
  for (double& weight : found.weights) {
    weight = (has_lambda ? found.lambda : 1) * weight / divisor;
  }
}

} // namespace

TensorParameters resolve_parameters(
    const Recipe& recipe,
    const std::vector<const Settings*>& models,
    const Settings& slice,
    const TensorPlace& place,
    size_t output) {
  const MethodInfo& method = *recipe.method;
  TensorParameters found;
  for (const auto& [name, values] : kModelFields) {
    const ParameterInfo* parameter = method.find_parameter(name);
    for (size_t t = 0; parameter != nullptr && t < models.size(); ++t) {
      (found.*values)
          .push_back(resolve(
              method,
              *parameter,
              {models[t], &slice, &recipe.parameters},
              place.in_models[t],
              place,
              output));
    }
  }
  for (const auto& [name, value] : kMergeFields) {
    if (const ParameterInfo* parameter = method.find_parameter(name)) {
      found.*value = resolve(
          method,
          *parameter,
          {&slice, &recipe.parameters},
          place.output,
          place,
          output);
    }
  }
  finish_weights(method, place, found);
  return found;
}

} // namespace merganser
