#pragma once

#include "merganser/recipe/method.h"

// Parameters that several methods have.
namespace merganser::methods {

inline constexpr ParameterInfo kWeight = {
    .name = "weight",
    .scope = ParameterInfo::Scope::kModel,
    .fallback = 1,
    .meaning = "w, of a model"};

// For formulas that divide by a sum of weighted Fishers: a negative one would
// make denominators vanish.
inline constexpr ParameterInfo kFisherWeight = {
    .name = "weight",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .fallback = 1,
    .meaning = "w, of a model"};

// As large as a Fisher's.
inline constexpr ParameterInfo kGramWeight = kFisherWeight;

inline constexpr ParameterInfo kRidge = {
    .name = "ridge",
    .min = 0,
    .fallback = 1e-4,
    .meaning =
        "what is added to the diagonals of Gram matrices, as a share of "
        "their mean"};

inline constexpr ParameterInfo normalize(bool by_default) {
  return {
      .name = "normalize",
      .is_flag = true,
      .fallback = by_default,
      .meaning = "divide by the sum of the weights"};
}

inline constexpr ParameterInfo kLambda = {
    .name = "lambda",
    .fallback = 1,
    .meaning = "factor of the merged task vector"};

inline constexpr ParameterInfo kNormalizeFishers = {
    .name = "normalize_fishers",
    .is_flag = true,
    .fallback = 0,
    .meaning = "H is F divided by its mean over the merged tensors, not N F"};

inline constexpr ParameterInfo kDelta = {
    .name = "delta",
    .min = 0,
    .fallback = 1e-12,
    .meaning = "delta in H_0 = N_0 F_0 + delta, the base's weight decay"};

inline constexpr ParameterInfo kDensity = {
    .name = "density",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .max = 1,
    .fallback = 1,
    .meaning = "share of a task vector that is kept"};

inline constexpr ParameterInfo rescale(bool by_default) {
  return {
      .name = "rescale",
      .is_flag = true,
      .fallback = by_default,
      .meaning = "scale what is kept to the task vector's sum of magnitudes"};
}

inline constexpr ParameterInfo kGamma = {
    .name = "gamma",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .max = 1,
    .fallback = 0.01,
    .meaning = "share of the greatest magnitudes that is dropped"};

inline constexpr ParameterInfo kEpsilon = {
    .name = "epsilon",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .max = 1,
    .fallback = 0.15,
    .meaning =
        "probabilities of being kept are density - epsilon for the "
        "least and density + epsilon for the greatest of a row"};

inline constexpr ParameterInfo kSeed = {
    .name = "seed",
    .is_whole = true,
    .min = 0,
    .max = 9007199254740992, // 2^53: all whole numbers up to it are doubles
    .fallback = 0,
    .meaning = "of the random choices"};

} // namespace merganser::methods
