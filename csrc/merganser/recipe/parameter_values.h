#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/recipe/recipe.h"

namespace merganser {

// The values of a method's parameters for one tensor of one output. Parameters
// that the method lacks are 0 (factors and powers: 1), or empty.
struct TensorParameters {
  bool operator==(const TensorParameters&) const = default;

  // One value per model. The weights are those of the formula: normalize and
  // lambda are applied to them unless the formula handles these itself.
  std::vector<double> weights;
  std::vector<double> density;
  std::vector<double> gamma;
  std::vector<double> epsilon;
  std::vector<double> rho; // kAuto until the plan replaces it
  std::vector<double> fisher_scales; // likewise
  // One value for the merge.
  double base_fisher_scale = 1; // kAuto until the plan replaces it
  double fisher_power = 1;
  double delta = 0;
  double clamp = 0;
  double floor = 0;
  double shrink = 0;
  double lambda = 0;
  double off_diagonal = 0;
  double ridge = 0;
  double normalize = 0; // flag
  double normalize_fishers = 0; // flag
  double average_buffers = 0; // flag
  double rescale = 0; // flag
  double seed = 0;
  double t = 0;
};

// The place of a tensor, on which settings can depend.
struct TensorPlace {
  std::string_view output; // name
  std::vector<std::string> in_models; // names
  double depth = 0; // 0: first layer or outside the layers; 1: last layer
};

// True if the method divides by the sum of the weights and that is 0.
MERGANSER_API bool weights_sum_to_zero(
    const MethodInfo& method,
    std::span<const double> weights,
    bool normalize);

// The weights of the formula: divided by their sum and multiplied by lambda,
// unless the formula handles these itself.
MERGANSER_API std::vector<double> formula_weights(
    const MethodInfo& method,
    std::vector<double> weights,
    bool normalize,
    double lambda);

// True if the weights of the models are `auto`. Throws InputError if only some
// are, or only for some tensors.
MERGANSER_API bool weights_are_auto(
    const std::vector<const Settings*>& models,
    const Settings& merge);

// Resolves all parameters for a tensor. Settings of a model override those of
// its slice, which override those of the recipe. Throws InputError for a
// missing parameter, and for weights that sum to 0 if the method divides by the
// sum.
MERGANSER_API TensorParameters resolve_parameters(
    const MethodInfo& method,
    const Settings& merge,
    const std::vector<const Settings*>& models,
    const Settings& slice,
    const TensorPlace& place,
    size_t output);

// The value of a parameter that no tensor may change, from the first level that
// has it, otherwise its default. Throws InputError for a value that depends on
// the tensor.
MERGANSER_API double constant_parameter(
    const MethodInfo& method,
    std::string_view name,
    std::initializer_list<const Settings*> levels,
    size_t output);

} // namespace merganser
