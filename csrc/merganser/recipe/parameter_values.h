#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/recipe/recipe.h"

namespace merganser {

// The values of a method's parameters for one tensor of one output. Those that
// the method does not have are 0, or empty.
struct TensorParameters {
  bool operator==(const TensorParameters&) const = default;

  // One per model. The weights are what the formula multiplies with: divided by
  // their sum and multiplied by lambda where that is all these do.
  std::vector<double> weights;
  std::vector<double> density;
  std::vector<double> gamma;
  std::vector<double> epsilon;
  // One for all.
  double delta = 0;
  double clamp = 0;
  double floor = 0;
  double lambda = 0;
  double off_diagonal = 0;
  double ridge = 0;
  double normalize = 0; // flag
  double normalize_fishers = 0; // flag
  double rescale = 0; // flag
  double seed = 0;
  double t = 0;
};

// Where a tensor stands: settings can depend on it.
struct TensorPlace {
  std::string_view output; // name
  std::vector<std::string> in_models; // names
  double depth = 0; // 0: in the first layer or outside; 1: in the last one
};

// Whether the weights sum to 0 where a formula divides by them.
MERGANSER_API bool weights_sum_to_zero(
    const MethodInfo& method,
    std::span<const double> weights,
    bool normalize);

// The weights as the formula multiplies with them: divided by their sum, and
// times lambda, where it leaves that to them.
MERGANSER_API std::vector<double> formula_weights(
    const MethodInfo& method,
    std::vector<double> weights,
    bool normalize,
    double lambda);

// A setting of a model comes before one of its slice, and that before one of
// the recipe. Throws InputError for a parameter that is missing, or weights
// that sum to 0 and are divided by their sum.
MERGANSER_API TensorParameters resolve_parameters(
    const MethodInfo& method,
    const Settings& merge,
    const std::vector<const Settings*>& models,
    const Settings& slice,
    const TensorPlace& place,
    size_t output);

} // namespace merganser
