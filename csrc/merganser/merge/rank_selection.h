#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace merganser {

// Returns the bits of |x|, which have the same order as the magnitudes, with
// infinity and then NaN above all others.
template <typename T>
auto magnitude_bits(T x) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  return static_cast<Bits>(std::bit_cast<Bits>(x) & (~Bits{0} >> 1));
}

// Finds the magnitude of a given rank among numbers that are read in parts, a
// few times over, and not kept: a radix selection over magnitude_bits. Exact,
// and independent of how the numbers are divided into parts.
template <typename T>
class RankSelection {
 public:
  using Bits = decltype(magnitude_bits(T()));
  static constexpr int kDigitBits = 16;
  static constexpr int kPasses = sizeof(T) * 8 / kDigitBits;
  using Histogram = std::vector<uint64_t>;

  // `rank` counts from 0 in increasing order.
  explicit RankSelection(uint64_t rank) : rank_(rank) {}

  static Histogram empty_histogram() {
    return Histogram(size_t{1} << kDigitBits);
  }

  // Counts the numbers of a part that the earlier passes did not exclude.
  void count(std::span<const T> values, Histogram& histogram) const {
    const int shift = kDigitBits * (kPasses - 1 - pass_);
    for (const T x : values) {
      const Bits bits = magnitude_bits(x);
      if (pass_ == 0 || bits >> (shift + kDigitBits) == prefix_) {
        ++histogram[(bits >> shift) & kDigitMask];
      }
    }
  }

  // Ends a pass, given the histogram of all parts.
  void advance(const Histogram& histogram) {
    Bits digit = 0;
    while (rank_ >= histogram[digit]) {
      rank_ -= histogram[digit];
      ++digit;
    }
    prefix_ = static_cast<Bits>(prefix_ << kDigitBits) | digit;
    ++pass_;
  }

  // Returns the magnitude; valid after the last pass.
  T value() const {
    return std::bit_cast<T>(prefix_);
  }

 private:
  static constexpr Bits kDigitMask = (Bits{1} << kDigitBits) - 1;

  uint64_t rank_; // among the numbers that begin with prefix_
  Bits prefix_ = 0;
  int pass_ = 0;
};

} // namespace merganser
