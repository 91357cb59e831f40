#include "merganser/fisher/posterior.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "merganser/base/error.h"

namespace merganser {
namespace {

using Tensors = Posterior::Tensors;

void check_shape(
    const at::Tensor& tensor,
    const at::Tensor& expected,
    const std::string& what,
    const std::string& name) {
  if (tensor.sizes() != expected.sizes()) {
    throw InputError(fmt::format(
        "{} of tensor {} differs in shape from its mean", what, name));
  }
}

const at::Tensor& find(
    const Tensors& tensors,
    const std::string& name,
    const std::string& what) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    throw InputError(fmt::format("{} lacks tensor {}", what, name));
  }
  return found->second;
}

void check_delta(double delta) {
  if (!std::isfinite(delta) || delta < 0) {
    throw InputError(
        fmt::format("delta must be finite and non-negative, got {}", delta));
  }
}

Tensors to_tensors(const FisherResult& fisher) {
  return {fisher.diagonal.begin(), fisher.diagonal.end()};
}

// The posterior must be the base's times a likelihood: the same tensors, at
// least the base's precision, and the base's values where these are known.
void check_compatible(const Posterior& posterior, const Posterior& base) {
  for (const auto* tensors : {&posterior.mean(), &posterior.precision()}) {
    const bool mean = tensors == &posterior.mean();
    const Tensors& expected = mean ? base.mean() : base.precision();
    for (const auto& [name, x] : *tensors) {
      check_shape(x, find(expected, name, "the base"), "the value", name);
    }
    for (const auto& item : expected) {
      find(*tensors, item.first, "a posterior");
    }
  }
  for (const auto& [name, h0] : base.precision()) {
    if ((posterior.precision().at(name) < h0).any().item<bool>()) {
      throw InputError(fmt::format(
          "the precision of tensor {} is below the base's; give laplace the "
          "base's Fisher",
          name));
    }
  }
  for (const auto& [name, x] : base.mean()) {
    const at::Tensor& other = posterior.mean().at(name);
    if (x.is_floating_point() && !base.precision().contains(name) &&
        !other.to(x.scalar_type()).equal(x)) {
      throw InputError(fmt::format(
          "tensor {} differs from the base's, but has no precision", name));
    }
  }
}

void check_weights(const std::vector<double>& weights, size_t count) {
  if (count == 0 || weights.size() != count) {
    throw InputError(fmt::format(
        "expected one weight per posterior, got {} weights for {} posteriors",
        weights.size(),
        count));
  }
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight < 0) {
      throw InputError(fmt::format(
          "weights must be finite and non-negative, got {}", weight));
    }
  }
}

} // namespace

Posterior::Posterior(const Tensors& mean, const Tensors& precision) {
  for (const auto& [name, x] : mean) {
    if (x.is_floating_point() && !x.isfinite().all().item<bool>()) {
      throw InputError(
          fmt::format("the mean of tensor {} is not finite", name));
    }
    // A copy: the model may train further.
    mean_.emplace(name, x.detach().cpu().contiguous().clone());
  }
  for (const auto& [name, x] : precision) {
    const at::Tensor& own = find(mean_, name, "the mean");
    check_shape(x, own, "the precision", name);
    if (!own.is_floating_point()) {
      throw InputError(fmt::format(
          "tensor {} has a precision, but is not floating-point", name));
    }
    const at::Tensor valid = x.isfinite() & (x >= 0);
    if (!valid.all().item<bool>()) {
      throw InputError(fmt::format(
          "the precision of tensor {} must be finite and non-negative, got {}",
          name,
          x.masked_select(~valid)[0].item<double>()));
    }
    precision_.emplace(name, x.detach().cpu().contiguous().clone());
  }
}

Posterior Posterior::laplace(
    const Tensors& model,
    const FisherResult& fisher,
    const FisherResult* base_fisher,
    double delta) {
  check_delta(delta);
  Tensors precision = to_tensors(fisher);
  Tensors prior;
  if (base_fisher != nullptr) {
    prior = to_tensors(*base_fisher);
    for (const auto& item : prior) {
      find(precision, item.first, "the Fisher");
    }
  }
  for (auto& [name, f] : precision) {
    const at::ScalarType type = f.scalar_type();
    at::Tensor h = f.to(at::kDouble) * fisher.num_examples;
    if (base_fisher != nullptr) {
      const at::Tensor& f0 = find(prior, name, "the base's Fisher");
      check_shape(f0, f, "the base's Fisher", name);
      h += f0.to(at::kDouble) * base_fisher->num_examples;
    }
    f = (h + delta).to(type);
  }
  return {model, precision};
}

Posterior Posterior::product(
    const std::vector<Posterior>& posteriors,
    const Posterior& base,
    const std::vector<double>& weights) {
  check_weights(weights, posteriors.size());
  for (const Posterior& posterior : posteriors) {
    check_compatible(posterior, base);
  }
  Tensors mean = base.mean_;
  Tensors precision;
  for (const auto& [name, prior] : base.precision_) {
    const at::Tensor& stored = base.mean_.at(name);
    const at::Tensor theta0 = stored.to(at::kDouble);
    const at::Tensor h0 = prior.to(at::kDouble);
    at::Tensor total = h0.clone();
    at::Tensor plain = at::zeros_like(theta0); // sum_t w_t tau_t
    at::Tensor pull = at::zeros_like(theta0); // sum_t w_t (H_0 + H_t) tau_t
    for (size_t t = 0; t < posteriors.size(); ++t) {
      const at::Tensor h = posteriors[t].precision_.at(name).to(at::kDouble);
      const at::Tensor tau =
          posteriors[t].mean_.at(name).to(at::kDouble) - theta0;
      total += weights[t] * (h - h0);
      plain += weights[t] * tau;
      pull += weights[t] * h * tau;
    }
    const at::Tensor step = at::where(total == 0, plain, pull / total);
    mean[name] = (theta0 + step).to(stored.scalar_type());
    precision[name] = total.to(prior.scalar_type());
  }
  return {mean, precision};
}

Posterior Posterior::with_prior(double delta) const {
  check_delta(delta);
  if (delta == 0) {
    throw InputError("delta must be above 0, got 0");
  }
  Tensors precision;
  for (const auto& [name, p] : precision_) {
    precision[name] = (p.to(at::kDouble) + delta).to(p.scalar_type());
  }
  return {mean_, precision};
}

double Posterior::log_density(const Tensors& state) const {
  check_proper();
  double total = 0;
  for (const auto& [name, mean] : mean_) {
    const at::Tensor& x = find(state, name, "the state");
    check_shape(x, mean, "the value", name);
    const auto found = precision_.find(name);
    if (found != precision_.end()) {
      const at::Tensor p = found->second.to(at::kDouble);
      const at::Tensor squares =
          p * (x.to(at::kDouble) - mean.to(at::kDouble)).square();
      total += (p.log() - std::log(2 * std::numbers::pi) - squares)
                   .sum()
                   .item<double>() /
          2;
    } else if (!x.to(mean.scalar_type()).equal(mean)) {
      throw InputError(fmt::format(
          "tensor {} differs from the mean, but has no precision", name));
    }
  }
  return total;
}

Posterior::Tensors Posterior::sample(uint64_t seed) const {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return sample(generator);
}

Posterior::Tensors Posterior::sample(at::Generator& generator) const {
  check_proper();
  Tensors drawn;
  for (const auto& [name, mean] : mean_) {
    const auto found = precision_.find(name);
    if (found == precision_.end()) {
      drawn[name] = mean.clone();
      continue;
    }
    const at::Tensor& p = found->second;
    const at::Tensor noise = at::randn(p.sizes(), generator, p.options());
    drawn[name] = (mean + noise / p.sqrt()).to(mean.scalar_type());
  }
  return drawn;
}

int64_t Posterior::zeros() const {
  int64_t count = 0;
  for (const auto& item : precision_) {
    count += (item.second == 0).sum().item<int64_t>();
  }
  return count;
}

void Posterior::check_proper() const {
  const int64_t count = zeros();
  if (count > 0) {
    throw InputError(fmt::format(
        "{} elements have precision 0, so that the posterior is not a "
        "distribution: call with_prior",
        count));
  }
}

} // namespace merganser
