#include "merganser/search/proposals.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "merganser/numeric/philox.h"

namespace merganser {
namespace {

// Streams of the random numbers.
constexpr uint64_t kStarts = 0;
constexpr uint64_t kSteps = 1;

constexpr double kFirstLength = 0.2;
constexpr double kShortest = 0.003;
constexpr double kLonger = 1.5; // after a success
const double kShorter = std::pow(kLonger, -0.25); // after none

double uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  return static_cast<double>(philox_u64(seed, stream, index) >> 11) * 0x1p-53;
}

double normal(uint64_t seed, uint64_t stream, uint64_t index) {
  const double u = 1 - uniform(seed, stream, 2 * index); // above 0
  const double v = uniform(seed, stream, 2 * index + 1);
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

// The root of x^(d + 1) = x + 1 above 1.
double generalized_golden_ratio(size_t dimensions) {
  double x = 2;
  for (int i = 0; i < 64; ++i) {
    x = std::pow(1 + x, 1 / (static_cast<double>(dimensions) + 1));
  }
  return x;
}

double fraction(double x) {
  return x - std::floor(x);
}

// Mirrors at the faces of the cube, and stays below 1.
double reflect(double x) {
  const double y = std::abs(x - 2 * std::round(x / 2));
  return std::min(y, std::nextafter(1.0, 0.0));
}

// The number of combinations of lists; nothing with a range.
std::optional<uint64_t> count_combinations(const SearchSpace& space) {
  uint64_t count = 1;
  for (const SearchedParameter& searched : space) {
    const uint64_t values = searched.values.size();
    if (values == 0 || count > UINT32_MAX / values) {
      return std::nullopt;
    }
    count *= values;
  }
  return count;
}

} // namespace

Proposals::Proposals(SearchSpace space, uint64_t seed)
    : space_(std::move(space)),
      seed_(seed),
      combinations_(count_combinations(space_)),
      length_(kFirstLength) {}

std::optional<SearchPoint> Proposals::next() {
  if (combinations_) {
    if (proposed_ == *combinations_) {
      return std::nullopt;
    }
    last_ = combination(proposed_);
  } else {
    is_step_ = proposed_ % 2 == 1 && best_;
    last_ = is_step_ ? step() : explore();
  }
  ++proposed_;
  return last_;
}

void Proposals::tell(const std::optional<SearchScore>& score) {
  const bool success = score && (!best_ || *score < best_score_);
  if (success) {
    best_ = last_;
    best_score_ = *score;
  }
  if (is_step_) {
    length_ *= success ? kLonger : kShorter;
    length_ = std::clamp(length_, kShortest, kFirstLength);
  }
}

// Steps through all of them by a number without a common divisor, near the
// golden section of their count.
SearchPoint Proposals::combination(uint64_t index) const {
  const uint64_t count = *combinations_;
  auto stride =
      static_cast<uint64_t>(static_cast<double>(count) / std::numbers::phi);
  while (std::gcd(stride, count) != 1) {
    ++stride;
  }
  uint64_t rest =
      (philox_u64(seed_, kStarts, 0) % count + index * stride) % count;
  SearchPoint point;
  for (const SearchedParameter& searched : space_) {
    const uint64_t values = searched.values.size();
    point.push_back(
        (static_cast<double>(rest % values) + 0.5) /
        static_cast<double>(values));
    rest /= values;
  }
  return point;
}

SearchPoint Proposals::explore() {
  ++explored_;
  const double ratio = generalized_golden_ratio(space_.size());
  SearchPoint point;
  double stride = 1;
  for (size_t i = 0; i < space_.size(); ++i) {
    stride /= ratio;
    point.push_back(fraction(
        uniform(seed_, kStarts, i) + static_cast<double>(explored_) * stride));
  }
  return point;
}

SearchPoint Proposals::step() {
  SearchPoint point = *best_;
  for (size_t i = 0; i < point.size(); ++i) {
    const uint64_t index = proposed_ * point.size() + i;
    point[i] = reflect(point[i] + length_ * normal(seed_, kSteps, index));
  }
  return point;
}

} // namespace merganser
