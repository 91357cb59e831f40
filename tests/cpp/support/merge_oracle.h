#pragma once

#include <algorithm>
#include <random>
#include <valarray>
#include <vector>

#include "merganser/numeric/merge_formula.h"

namespace merganser::test {

using Vector = std::valarray<double>;

// Inputs of a merge as whole vectors in float64.
struct Problem {
  Vector base, base_fisher;
  std::vector<Vector> models, fishers;
  std::vector<double> weights, scales;
  std::vector<double> rhos; // of gradient matching; empty: 1 each
  double base_scale = 100, delta = 1e-12, clamp = 0.05, floor = 1e-6;
  double lambda = 0.75;
  bool normalize = true;
};

inline constexpr int kLastFormula =
    static_cast<int>(MergeFormula::kSignElection);

inline Vector random_vector(
    std::mt19937& random,
    size_t n,
    double least,
    double most) {
  std::uniform_real_distribution<double> draw(least, most);
  Vector values(n);
  for (double& x : values) {
    x = static_cast<float>(draw(random)); // the same number in both types
  }
  return values;
}

inline Problem random_problem(size_t n, size_t count) {
  std::mt19937 random(static_cast<unsigned>(n + 7 * count));
  Problem problem;
  problem.base = random_vector(random, n, -1, 1);
  problem.base_fisher = random_vector(random, n, 0, 2e-6);
  for (size_t t = 0; t < count; ++t) {
    problem.models.push_back(
        problem.base + random_vector(random, n, -0.01, 0.01));
    for (double& x : problem.models.back()) {
      x = static_cast<float>(x);
    }
    problem.fishers.push_back(random_vector(random, n, 0, 1e-5));
    problem.weights.push_back(0.25 * static_cast<double>(t + 1));
    problem.scales.push_back(10.0 * static_cast<double>(t + 1));
  }
  // Coordinates that only one has seen, or only the base.
  for (size_t i = 0; i < n; i += 5) {
    for (size_t t = 1; t < count; ++t) {
      problem.fishers[t][i] = 0;
    }
  }
  for (size_t i = 0; i < n; i += 7) {
    problem.base_fisher[i] = 0;
  }
  return problem;
}

// The definitions of docs/method.md, section 2, word for word and independent
// of numeric/merge_formula.h. No Fisher is zero everywhere.
inline Vector oracle(MergeFormula method, const Problem& p) {
  const size_t n = p.models[0].size();
  const auto sum = [&](auto term) {
    Vector total(0.0, n);
    for (size_t t = 0; t < p.models.size(); ++t) {
      total += Vector(p.weights[t] * term(t));
    }
    return total;
  };
  const auto tau = [&](size_t t) { return Vector(p.models[t] - p.base); };
  const auto h = [&](size_t t) { return Vector(p.scales[t] * p.fishers[t]); };
  const auto floored = [&](Vector f) {
    for (double& x : f) {
      x = std::max(x, p.floor);
    }
    return f;
  };
  const Vector sum_h =
      p.fishers.empty() ? Vector(0.0, n) : sum([&](size_t t) { return h(t); });
  const Vector h0 = p.base_scale * p.base_fisher + p.delta;
  switch (method) {
    case MergeFormula::kLinear:
      return sum([&](size_t t) { return p.models[t]; });
    case MergeFormula::kTaskArithmetic:
      return p.base + sum(tau);
    case MergeFormula::kFisher:
      return sum([&](size_t t) { return Vector(h(t) * p.models[t]); }) / sum_h;
    case MergeFormula::kFisherBase:
      return p.base +
          sum([&](size_t t) { return Vector(h(t) * tau(t)); }) / (h0 + sum_h);
    case MergeFormula::kGradientMatching:
      return p.base +
          sum([&](size_t t) {
            const double rho = p.rhos.empty() ? 1 : p.rhos[t];
            return Vector((rho * h0 + h(t)) * tau(t));
          }) /
          (h0 + sum_h);
    case MergeFormula::kRemoval: {
      const Vector exact = p.base -
          sum([&](size_t t) { return Vector((h0 + h(t)) * tau(t)); }) /
              (h0 - sum_h);
      Vector merged = p.base - sum(tau);
      for (size_t i = 0; i < n; ++i) {
        if (h0[i] - sum_h[i] >= p.clamp * (h0[i] + sum_h[i])) {
          merged[i] = exact[i];
        }
      }
      return merged;
    }
    case MergeFormula::kEwr: {
      const Vector f0 = floored(p.base_fisher);
      const auto f = [&](size_t t) { return floored(p.fishers[t]); };
      return (f0 * p.base -
              sum([&](size_t t) { return Vector(f(t) * tau(t)); })) /
          (f0 + sum(f));
    }
    // p.models are task vectors here.
    case MergeFormula::kTaskSum:
      return p.base + sum([&](size_t t) { return p.models[t]; });
    case MergeFormula::kSignElection: {
      const Vector elected = sum([&](size_t t) { return p.models[t]; });
      Vector merged = p.base;
      for (size_t i = 0; i < n; ++i) {
        double kept = 0;
        double total = 0;
        for (size_t t = 0; t < p.models.size(); ++t) {
          const double x = p.weights[t] * p.models[t][i];
          if (elected[i] >= 0 ? x > 0 : x < 0) {
            kept += x;
            total += p.weights[t];
          }
        }
        merged[i] += p.lambda * kept / (p.normalize && total != 0 ? total : 1);
      }
      return merged;
    }
  }
  return {};
}

} // namespace merganser::test
