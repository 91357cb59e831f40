#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/fisher/result.h"

namespace merganser {

// The normal distribution N(mean, diag(precision)^-1) of a model's parameters.
// A tensor without a precision (frozen, or a buffer) is known: it has its mean.
// With a precision of 0 it is not a distribution: products take it, but
// log_density and sample throw InputError; with_prior adds a precision
// everywhere. python/merganser/posterior.py is the same for any PyTorch module,
// and reads and writes the same files; it also knows tied tensors, which have
// one precision: here each name has a tensor of its own.
class MERGANSER_API Posterior {
 public:
  using Tensors = std::map<std::string, at::Tensor>; // by parameter name

  // Copies the tensors to the CPU. Throws InputError for a precision without a
  // mean of its shape, a mean that is not finite, and a precision that is not
  // finite or negative.
  Posterior(const Tensors& mean, const Tensors& precision);

  // The Laplace approximation at a model: precision N F + N_0 F_0 + delta.
  // base_fisher: F_0 of the base, for a model that was fine-tuned from it: the
  // base's posterior is then the prior of the model's. delta: the precision of
  // a normal prior, such as a weight decay of the sum of losses.
  static Posterior laplace(
      const Tensors& model,
      const FisherResult& fisher,
      const FisherResult* base_fisher = nullptr,
      double delta = 0);
  // The same from a checkpoint and Fisher files. Throws InputError if the
  // Fisher belongs to a different model.
  static Posterior laplace(
      const std::filesystem::path& model,
      const std::filesystem::path& fisher,
      const std::optional<std::filesystem::path>& base_fisher = std::nullopt,
      double delta = 0);

  // The product p_0 prod_t (p_t / p_0)^w_t, which counts the common prior once.
  // With p_0 = N(theta_0, H_0^-1) and p_t = N(theta_t, (H_0 + H_t)^-1), which
  // laplace returns given the base's Fisher and the same delta, the precision
  // is H_0 + sum_t w_t H_t and the mean that of gradient matching: the Bayesian
  // committee machine. Where every precision is 0, the mean is the limit
  // theta_0 + sum_t w_t tau_t and the precision 0. Computed in float64, stored
  // in the base's dtypes. Throws InputError for other tensors than the base's,
  // a precision below the base's and a weight that is not finite or negative.
  static Posterior product(
      const std::vector<Posterior>& posteriors,
      const Posterior& base,
      const std::vector<double>& weights);

  // The same mean with the precision `delta` > 0 added everywhere.
  Posterior with_prior(double delta) const;

  // log p(state), summed in float64. Throws InputError for a tensor that is
  // missing, of another shape, or without a precision and different from the
  // mean.
  double log_density(const Tensors& state) const;

  // A model drawn from the posterior, in the mean's dtypes: the one that
  // merganser.Posterior draws with the same seed, to rounding. A generator is
  // advanced, for several samples.
  Tensors sample(uint64_t seed) const;
  Tensors sample(at::Generator& generator) const;

  // Writes the mean to model.safetensors and the precision to
  // posterior.safetensors, a Fisher file with N = 1: with the config.json of
  // the model, the directory is an ordinary model directory, and merges take
  // the second file as a Fisher. Throws InputError, before anything is written,
  // for a precision that float32 cannot hold: too large, or so small that it
  // becomes 0.
  void save(const std::filesystem::path& folder) const;
  // Throws InputError for a mean that is not the one of the precision.
  static Posterior load(const std::filesystem::path& folder);

  const Tensors& mean() const {
    return mean_;
  }
  const Tensors& precision() const { // float32 or wider
    return precision_;
  }
  int64_t zeros() const; // number of elements with precision 0

 private:
  void check_proper() const;

  Tensors mean_;
  Tensors precision_;
};

} // namespace merganser
