#pragma once

#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/numeric/merge_formula.h"

namespace merganser {

// A parameter of a merge method, as recipes have it.
struct ParameterInfo {
  enum class Scope {
    kModel, // a value for every model
    kMerge, // one for all
  };
  std::string_view name = {};
  Scope scope = Scope::kMerge;
  bool is_flag = false; // true or false, kept as 1 or 0
  bool is_whole = false; // a whole number, not interpolated over the layers
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();
  bool above_min = false; // `min` itself is not allowed
  // Absent: a recipe must have it.
  std::optional<double> fallback = std::nullopt;
  std::string_view meaning = {}; // for people
};

// What becomes of task vectors before the formula sees them.
enum class Sparsify {
  kNone,
  kMagnitude, // the greatest, a share `density` of them
  kOutliers, // as many, but not the share `gamma` of the very greatest
  kRandom, // each with probability `density`
  kRanked, // each with a probability that grows with its rank in its row
};

// Where the models' weights come from.
enum class WeightRule {
  kGiven, // the parameter `weight`
  kScale, // the parameter `scale` of the only model
  kSlerp, // the angle between the tensors of base and model
  kModelStock, // the angles between the task vectors of a tensor
};

// How weights of linear layers are merged for which there are Gram matrices of
// their inputs (merge/gram.h); all other tensors follow the method's formula.
enum class BlockRule {
  kNone, // as all others
  kRegMean,
  kGradientMatching,
};

// One per method: what recipes, plan, engine and documents need to know of it.
// They are defined in recipe/methods and listed in methods.cpp.
struct MERGANSER_API MethodInfo {
  std::string_view name = {}; // in recipes
  std::string_view text = {}; // the formula, for people
  std::string_view source = {}; // paper or origin
  MergeFormula formula = MergeFormula::kLinear;
  Sparsify sparsify = Sparsify::kNone;
  WeightRule weights = WeightRule::kGiven;
  BlockRule block = BlockRule::kNone;
  bool needs_base = false;
  bool needs_fishers = false; // one per model
  bool needs_base_fisher = false;
  bool needs_num_examples = false; // of Fishers and Grams: H = N F
  int min_models = 1; // beside the base
  int max_models = 0; // 0: any number
  std::span<const ParameterInfo> parameters = {};

  const ParameterInfo* find_parameter(std::string_view name) const;
  // The default, 0 where it has no such parameter.
  double fallback(std::string_view name) const;
  bool needs_grams() const { // one per model
    return block != BlockRule::kNone;
  }
  bool needs_base_gram() const {
    return block == BlockRule::kGradientMatching;
  }
  // Whether it must go through a tensor before it can merge it.
  bool needs_statistics() const;
};

} // namespace merganser
