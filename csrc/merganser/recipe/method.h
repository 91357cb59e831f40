#pragma once

#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser {

// The value `auto` of a parameter.
inline constexpr double kAuto = std::numeric_limits<double>::quiet_NaN();

// A parameter of a merge method in recipes.
struct ParameterInfo {
  enum class Scope {
    kModel, // one value per model
    kMerge, // one value for the merge
  };
  std::string_view name = {};
  Scope scope = Scope::kMerge;
  bool is_flag = false; // true or false, stored as 1 or 0
  bool is_whole = false; // an integer, not interpolated over the layers
  bool may_be_auto =
      false; // `auto`, stored as kAuto: the plan's measured value
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();
  bool above_min = false; // `min` itself is not allowed
  // The default; a parameter without one is required.
  std::optional<double> fallback = std::nullopt;
  std::string_view meaning = {}; // for documentation
};

// Sparsification of task vectors before the formula.
enum class Sparsify {
  kNone,
  kMagnitude, // keeps the largest, a fraction `density`
  kOutliers, // drops a fraction `gamma` of the largest, keeps the next
             // `density`
  kRandom, // keeps each with probability `density`
  kRanked, // keeps each with a probability that grows with its rank in its row
};

// The source of the models' weights.
enum class WeightRule {
  kGiven, // the parameter `weight`
  kScale, // the parameter `scale` of the only model
  kSlerp, // the angle between the tensors of base and model
  kModelStock, // the angles between the task vectors of a tensor
  kMean, // lambda divided by the number of models
  kSubspace, // the optimum in the span of the task vectors, from a file
};

// The rule for weights of linear layers; all other tensors follow the method's
// formula.
enum class MatrixRule {
  kNone, // the formula
  // with Gram matrices of the layer's inputs (merge/gram.h)
  kRegMean,
  kGradientMatching,
  // by singular vectors of task vectors (merge/spectral.h)
  kTsvM,
  kIsoC,
};

// The description of a merge method that recipes, plan, engine and documents
// share. Defined in recipe/methods, listed in methods.cpp.
struct MERGANSER_API MethodInfo {
  std::string_view name = {}; // `merge_method` in recipes
  std::string_view text = {}; // the formula, for documentation
  std::string_view source = {}; // the paper, or the origin
  MergeFormula formula = MergeFormula::kLinear;
  Sparsify sparsify = Sparsify::kNone;
  WeightRule weights = WeightRule::kGiven;
  MatrixRule matrix = MatrixRule::kNone;
  bool needs_base = false;
  bool needs_fishers = false; // one per model
  bool needs_base_fisher = false;
  bool needs_num_examples = false; // N of Fishers and Grams: H = N F
  bool shrinks_base = false; // changes a base that no model changes
  bool needs_subspace = false; // a subspace Fisher, which gives the weights
  int min_models = 1; // without the base
  int max_models = 0; // 0: no limit
  std::span<const ParameterInfo> parameters = {};

  const ParameterInfo* find_parameter(std::string_view name) const;
  // The default of a parameter; 0 if the method lacks it.
  double fallback(std::string_view name) const;
  bool needs_grams() const { // one per model
    return matrix == MatrixRule::kRegMean ||
        matrix == MatrixRule::kGradientMatching;
  }
  bool needs_base_gram() const {
    return matrix == MatrixRule::kGradientMatching;
  }
  bool is_spectral() const {
    return matrix == MatrixRule::kTsvM || matrix == MatrixRule::kIsoC;
  }
  bool is_random() const { // has choices by seed
    return sparsify == Sparsify::kRandom || sparsify == Sparsify::kRanked;
  }
  // True if it reads a whole tensor for statistics before it merges it.
  bool needs_statistics() const;
};

} // namespace merganser
