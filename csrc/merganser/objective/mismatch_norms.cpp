#include "merganser/objective/mismatch_norms.h"

#include <ATen/ATen.h>

#include <cmath>

namespace merganser {
namespace {

// Share of the mean precision.
constexpr double kRounding = 1e-12;

// Null: undefined.
const float* data_of(const at::Tensor& flat) {
  return flat.defined() ? flat.const_data_ptr<float>() : nullptr;
}

} // namespace

void SquareTotals::Sums::add(double square, float precision) {
  two += square;
  if (precision > 0) {
    inverse += square / precision;
  }
}

void SquareTotals::add(
    const at::Tensor& mismatch,
    const at::Tensor& explained,
    const at::Tensor& precision,
    int64_t offset,
    int64_t numel) {
  has_explained_ = explained.defined();
  has_precision_ = precision.defined();
  const float* m = data_of(mismatch);
  const float* e = data_of(explained);
  const float* h = data_of(precision);
  for (int64_t i = offset; i < offset + numel; ++i) {
    const double value = m[i];
    const float weight = has_precision_ ? h[i] : 0;
    mismatch_.add(value * value, weight);
    if (has_explained_) {
      const double part = e[i];
      explained_.add(part * part, weight);
      rest_.add((value - part) * (value - part), weight);
    }
    if (weight <= 0) {
      without_ += value * value;
    }
  }
}

void SquareTotals::add(const SquareTotals& other) {
  const auto add = [](Sums& to, const Sums& from) {
    to.two += from.two;
    to.inverse += from.inverse;
  };
  has_explained_ = other.has_explained_;
  has_precision_ = other.has_precision_;
  add(mismatch_, other.mismatch_);
  add(explained_, other.explained_);
  add(rest_, other.rest_);
  without_ += other.without_;
}

VectorNorms SquareTotals::norms_of(const Sums& sums) const {
  VectorNorms norms{.two = std::sqrt(sums.two)};
  if (has_precision_) {
    norms.inverse_h0 = std::sqrt(sums.inverse);
  }
  return norms;
}

MismatchNorms SquareTotals::norms() const {
  MismatchNorms norms{.mismatch = norms_of(mismatch_)};
  if (has_explained_) {
    norms.explained = norms_of(explained_);
    norms.rest = norms_of(rest_);
  }
  if (has_precision_) {
    norms.share_without_h0 = mismatch_.two > 0 ? without_ / mismatch_.two : 0.0;
  }
  return norms;
}

void clear_rounding(const at::Tensor& precision, int64_t count) {
  const double sum = precision.sum(at::kDouble).item<double>();
  const double smallest = kRounding * sum / static_cast<double>(count);
  precision.masked_fill_(precision.le(smallest), 0);
}

TargetIdentity compare_identity(
    const at::Tensor& target,
    const at::Tensor& arithmetic,
    const at::Tensor& mismatch,
    const at::Tensor& precision) {
  const float* goal = data_of(target);
  const float* sum = data_of(arithmetic);
  const float* m = data_of(mismatch);
  const float* h = data_of(precision);
  double left = 0;
  double right = 0;
  double difference = 0;
  double product = 0;
  for (int64_t i = 0; i < target.numel(); ++i) {
    if (!(h[i] > 0)) { // also the arena's gaps
      continue;
    }
    const double a = static_cast<double>(goal[i]) - sum[i];
    const double b = -static_cast<double>(m[i]) / h[i];
    left += a * a;
    right += b * b;
    difference += (a - b) * (a - b);
    product += a * b;
  }
  TargetIdentity identity{
      .left = std::sqrt(left),
      .right = std::sqrt(right),
      .difference = std::sqrt(difference)};
  const double norms = identity.left * identity.right;
  identity.cosine = norms > 0 ? product / norms : 0;
  return identity;
}

} // namespace merganser
