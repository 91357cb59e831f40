#pragma once

#include "merganser/recipe/method.h"

// Parameters that several methods share.
namespace merganser::methods {

inline constexpr ParameterInfo kWeight = {
    .name = "weight",
    .scope = ParameterInfo::Scope::kModel,
    .fallback = 1,
    .meaning = "w_t, the weight of the model"};

// The weight in formulas whose result is theta_0 + sum w_t tau_t, to which a
// subspace Fisher of one group applies.
inline constexpr ParameterInfo kSubspaceWeight = {
    .name = "weight",
    .scope = ParameterInfo::Scope::kModel,
    .may_be_auto = true,
    .fallback = 1,
    .meaning = "w_t, the weight of the model"};

// The weight in formulas that divide by a sum of weighted Fishers: with a
// negative weight the denominator could be 0.
inline constexpr ParameterInfo kFisherWeight = {
    .name = "weight",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .fallback = 1,
    .meaning = "w_t, the weight of the model"};

// The same range as for Fishers.
inline constexpr ParameterInfo kGramWeight = kFisherWeight;

inline constexpr ParameterInfo kRidge = {
    .name = "ridge",
    .min = 0,
    .fallback = 1e-4,
    .meaning =
        "constant added to the diagonals of the Gram matrices, as a fraction "
        "of their mean"};

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
    .meaning = "factor that multiplies the merged task vector"};

inline constexpr ParameterInfo kNormalizeFishers = {
    .name = "normalize_fishers",
    .is_flag = true,
    .fallback = 0,
    .meaning =
        "H is F divided by its mean over the merged tensors, instead of N F"};

inline constexpr ParameterInfo kFisherScale = {
    .name = "fisher_scale",
    .scope = ParameterInfo::Scope::kModel,
    .may_be_auto = true,
    .min = 0,
    .above_min = true,
    .fallback = 1,
    .meaning =
        "factor that multiplies H_t; auto: as measured by merganser calibrate, "
        "from the metadata of the model's Fisher"};

inline constexpr ParameterInfo kBaseFisherScale = {
    .name = "base_fisher_scale",
    .may_be_auto = true,
    .min = 0,
    .above_min = true,
    .fallback = 1,
    .meaning =
        "factor that multiplies N_0 F_0; auto: likewise, of the base's Fisher"};

inline constexpr ParameterInfo kFisherPower = {
    .name = "fisher_power",
    .min = 0,
    .above_min = true,
    .fallback = 1,
    .meaning = "p: every F is replaced by F^p, element by element"};

inline constexpr ParameterInfo average_buffers(bool by_default) {
  return {
      .name = "average_buffers",
      .is_flag = true,
      .fallback = by_default,
      .meaning =
          "average tensors that no Fisher covers, such as running statistics, "
          "by the models' weights; false: keep the base's"};
}

inline constexpr ParameterInfo kDelta = {
    .name = "delta",
    .min = 0,
    .fallback = 1e-12,
    .meaning = "delta in H_0 = N_0 F_0 + delta, the weight decay of the base"};

inline constexpr ParameterInfo kRho = {
    .name = "rho",
    .scope = ParameterInfo::Scope::kModel,
    .may_be_auto = true,
    .fallback = kAuto,
    .meaning =
        "rho_t in g_t = -rho_t H_0 tau_t, the gradient of the model's loss at "
        "the end of its training; auto: as measured, from the metadata of the "
        "model's Fisher"};

inline constexpr ParameterInfo kDensity = {
    .name = "density",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .max = 1,
    .fallback = 1,
    .meaning = "fraction of the task vector that is kept"};

inline constexpr ParameterInfo rescale(bool by_default) {
  return {
      .name = "rescale",
      .is_flag = true,
      .fallback = by_default,
      .meaning =
          "rescale the kept entries to the task vector's sum of magnitudes"};
}

inline constexpr ParameterInfo kGamma = {
    .name = "gamma",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .max = 1,
    .fallback = 0.01,
    .meaning =
        "fraction of the task vector that is dropped, the largest magnitudes"};

inline constexpr ParameterInfo kEpsilon = {
    .name = "epsilon",
    .scope = ParameterInfo::Scope::kModel,
    .min = 0,
    .max = 1,
    .fallback = 0.15,
    .meaning =
        "entries are kept with probability density - epsilon (the smallest "
        "of a row) to density + epsilon (the largest)"};

inline constexpr ParameterInfo kSeed = {
    .name = "seed",
    .is_whole = true,
    .min = 0,
    .max = 9007199254740992, // 2^53: doubles hold all integers up to it
    .fallback = 0,
    .meaning = "random seed"};

} // namespace merganser::methods
