#include "merganser/train/proximal.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>

#include "merganser/base/error.h"
#include "merganser/numeric/simd.h"
#include "merganser/train/flat_fisher.h"

namespace merganser {
namespace {

// Elements that are skipped together where their precision is zero: half of a
// model are vectors of words, many of which the data of the Fishers lack.
constexpr int64_t kUnit = 128;

std::vector<int64_t> find_units(const at::Tensor& precision) {
  const float* values = precision.const_data_ptr<float>();
  const int64_t size = precision.numel();
  std::vector<int64_t> units;
  for (int64_t begin = 0; begin < size; begin += kUnit) {
    const float* end = values + std::min(begin + kUnit, size);
    if (std::any_of(values + begin, end, [](float x) { return x != 0; })) {
      units.push_back(begin);
    }
  }
  return units;
}

struct Arrays {
  const float* now;
  const float* start;
  const float* precision;
  float* gradient; // null: only the sum
  int64_t size;
};

// Adds the pull precision * (now - start) to the gradient; returns the sum of
// pull * (now - start).
template <bool kGradient>
double add_pull(const Arrays& arrays, std::span<const int64_t> units) {
  // Independent sums, so that additions do not wait for each other.
  constexpr int64_t kLanes = 32;
  double sums[kLanes] = {};
  widest([&] {
    for (const int64_t unit : units) {
      const float* __restrict now = arrays.now + unit;
      const float* __restrict start = arrays.start + unit;
      const float* __restrict precision = arrays.precision + unit;
      float* __restrict gradient = kGradient ? arrays.gradient + unit : nullptr;
      const int64_t n = std::min(kUnit, arrays.size - unit);
      for (int64_t i = 0; i < n; i += kLanes) {
        const int64_t lanes = std::min(kLanes, n - i);
        for (int64_t lane = 0; lane < lanes; lane++) {
          const float difference = now[i + lane] - start[i + lane];
          const float pull = precision[i + lane] * difference;
          if constexpr (kGradient) {
            gradient[i + lane] += pull;
          }
          sums[lane] += static_cast<double>(pull) * difference;
        }
      }
    }
  });
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

} // namespace

Proximal::Proximal(
    const Arena& arena,
    const std::vector<std::filesystem::path>& fishers,
    const std::string& model_hash,
    double weight,
    int64_t num_examples)
    : start_(arena.parameters.clone()), precision_(arena.zeros()) {
  bool of_start = false;
  std::vector<std::string> names; // for the message
  for (const std::filesystem::path& file : fishers) {
    names.push_back(file.string());
    const FlatFisher fisher = read_flat_fisher(arena, file);
    of_start = of_start || fisher.may_belong_to(model_hash);
    const double factor =
        weight * fisher.num_examples / static_cast<double>(num_examples);
    if (factor <= std::numeric_limits<float>::max()) {
      precision_.add_(fisher.mean, factor);
    }
    if (factor > std::numeric_limits<float>::max() ||
        !precision_.isfinite().all().item<bool>()) {
      throw InputError(fmt::format(
          "{}: {:g} times this Fisher, the proximal weight of {:g} included, "
          "is "
          "beyond the range of float32; lower the weight",
          file.string(),
          factor,
          weight));
    }
  }
  if (!of_start) {
    throw InputError(fmt::format(
        "{}: of another model; one Fisher must belong to the model that "
        "training starts from: estimate it with merganser fisher --model",
        fmt::join(names, ", ")));
  }
  units_ = find_units(precision_);
}

Proximal::Proximal(at::Tensor start, at::Tensor precision)
    : start_(std::move(start)),
      precision_(std::move(precision)),
      units_(find_units(precision_)) {}

template <bool kGradient>
double Proximal::sum(const Arena& arena) const {
  constexpr size_t kUnitsPerSum = 256;
  const Arrays arrays{
      arena.parameters.const_data_ptr<float>(),
      start_.const_data_ptr<float>(),
      precision_.const_data_ptr<float>(),
      kGradient ? arena.gradients.data_ptr<float>() : nullptr,
      arena.parameters.numel()};
  const std::span<const int64_t> units(units_);
  std::vector<double> sums((units.size() + kUnitsPerSum - 1) / kUnitsPerSum);
  at::parallel_for(
      0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
        for (auto k = static_cast<size_t>(begin); k < static_cast<size_t>(end);
             k++) {
          const auto rest = units.subspan(k * kUnitsPerSum);
          sums[k] = add_pull<kGradient>(
              arrays, rest.first(std::min(kUnitsPerSum, rest.size())));
        }
      });
  return 0.5 * std::accumulate(sums.begin(), sums.end(), 0.0);
}

double Proximal::add_gradient(const Arena& arena) const {
  return sum<true>(arena);
}

double Proximal::value(const Arena& arena) const {
  return sum<false>(arena);
}

} // namespace merganser
