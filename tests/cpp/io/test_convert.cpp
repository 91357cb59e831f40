#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "merganser/io/dtype.h"
#include "support/expect_error.h"

// The oracle uses only the definition of the two 16-bit formats in real numbers
// (sign, mantissa times a power of two), and rounds by a search for the nearest
// of all values in a table.

namespace merganser {
namespace {

struct Format {
  DType dtype;
  int mantissa_bits;
  int bias;
};
constexpr Format kF16{DType::kF16, 10, 15};
constexpr Format kBF16{DType::kBF16, 7, 127};

double value_of(const Format& f, uint16_t pattern) {
  const int exponent_bits = 15 - f.mantissa_bits;
  const int exponent = pattern >> f.mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = pattern & ((1 << f.mantissa_bits) - 1);
  double magnitude;
  if (exponent == (1 << exponent_bits) - 1) {
    magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                              : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
  } else {
    magnitude = std::ldexp(
        mantissa + (1 << f.mantissa_bits), exponent - f.bias - f.mantissa_bits);
  }
  return (pattern & 0x8000) != 0 ? -magnitude : magnitude;
}

uint16_t infinity_of(const Format& f) {
  return static_cast<uint16_t>(0x7fff & ~((1 << f.mantissa_bits) - 1));
}

class Rounding {
 public:
  explicit Rounding(const Format& f) : infinity_(infinity_of(f)) {
    for (uint32_t p = 0; p < infinity_; ++p) {
      values_.push_back(value_of(f, static_cast<uint16_t>(p)));
    }
    // The next value if the format had one more exponent: from half way to it,
    // numbers round to infinity.
    const double last = values_.back();
    values_.push_back(last + (last - values_[values_.size() - 2]));
  }

  uint16_t operator()(double value) const {
    const double magnitude = std::fabs(value);
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const auto above =
        std::lower_bound(values_.begin(), values_.end(), magnitude);
    if (above == values_.end()) {
      return sign | infinity_;
    }
    auto pattern = static_cast<uint16_t>(above - values_.begin());
    if (*above != magnitude) {
      const double up = *above - magnitude; // exact: adjacent values
      const double down = magnitude - *(above - 1);
      const bool tie_to_lower = up == down && (pattern & 1) != 0;
      if (down < up || tie_to_lower) {
        --pattern;
      }
    }
    return sign | pattern;
  }

  // Every value and every midpoint between adjacent values.
  std::vector<double> edges() const {
    std::vector<double> result = values_;
    for (size_t i = 1; i < values_.size(); ++i) {
      result.push_back(values_[i - 1] + (values_[i] - values_[i - 1]) / 2);
    }
    return result;
  }

 private:
  uint16_t infinity_;
  std::vector<double> values_;
};

template <typename Float>
std::vector<uint16_t> narrow(DType dtype, const std::vector<Float>& in) {
  std::vector<uint16_t> out(in.size());
  auto* bytes = reinterpret_cast<std::byte*>(out.data());
  if constexpr (std::is_same_v<Float, float>) {
    from_float32(dtype, in.data(), bytes, in.size());
  } else {
    from_float64(dtype, in.data(), bytes, in.size());
  }
  return out;
}

class Convert : public testing::TestWithParam<Format> {};
INSTANTIATE_TEST_SUITE_P(
    Formats,
    Convert,
    testing::Values(kF16, kBF16),
    [](const auto& info) { return std::string(dtype_name(info.param.dtype)); });

TEST_P(Convert, EveryPatternWidens) {
  std::vector<uint16_t> patterns(1 << 16);
  for (size_t i = 0; i < patterns.size(); ++i) {
    patterns[i] = static_cast<uint16_t>(i);
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(patterns.data());
  std::vector<float> floats(patterns.size());
  std::vector<double> doubles(patterns.size());
  to_float32(GetParam().dtype, bytes, floats.data(), floats.size());
  to_float64(GetParam().dtype, bytes, doubles.data(), doubles.size());
  const auto back32 = narrow(GetParam().dtype, floats);
  const auto back64 = narrow(GetParam().dtype, doubles);
  for (const uint16_t pattern : patterns) {
    const double expected = value_of(GetParam(), pattern);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(floats[pattern])) << pattern;
      ASSERT_TRUE(std::isnan(doubles[pattern])) << pattern;
      ASSERT_TRUE(std::isnan(value_of(GetParam(), back32[pattern])));
      ASSERT_TRUE(std::isnan(value_of(GetParam(), back64[pattern])));
      continue;
    }
    // Compares bits: -0 is not 0.
    ASSERT_EQ(
        std::bit_cast<uint64_t>(expected),
        std::bit_cast<uint64_t>(static_cast<double>(floats[pattern])))
        << pattern;
    ASSERT_EQ(
        std::bit_cast<uint64_t>(expected),
        std::bit_cast<uint64_t>(doubles[pattern]))
        << pattern;
    ASSERT_EQ(back32[pattern], pattern);
    ASSERT_EQ(back64[pattern], pattern);
  }
}

template <typename Float>
void expect_rounded(const Format& format, const std::vector<Float>& inputs) {
  const Rounding round(format);
  const auto outputs = narrow(format.dtype, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(outputs[i], round(inputs[i]))
        << std::hexfloat << inputs[i] << " became "
        << value_of(format, outputs[i]);
  }
}

template <typename Float>
std::vector<Float> edges_and_neighbours(const Format& format) {
  constexpr Float kInfinity = std::numeric_limits<Float>::infinity();
  std::vector<Float> result;
  for (const double edge : Rounding(format).edges()) {
    const auto x = static_cast<Float>(edge);
    for (const Float y :
         {x, std::nextafter(x, kInfinity), std::nextafter(x, -kInfinity)}) {
      result.push_back(y);
      result.push_back(-y);
    }
  }
  result.push_back(kInfinity);
  result.push_back(-kInfinity);
  return result;
}

TEST_P(Convert, Float32RoundsOnceToNearestEven) {
  auto inputs = edges_and_neighbours<float>(GetParam());
  std::mt19937 random(1);
  for (int i = 0; i < 300'000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(x)) {
      inputs.push_back(x);
    }
  }
  expect_rounded(GetParam(), inputs);
}

// Values closer to a midpoint than float can represent: narrowing to float
// first would round twice.
TEST_P(Convert, Float64RoundsOnceToNearestEven) {
  auto inputs = edges_and_neighbours<double>(GetParam());
  std::mt19937_64 random(1);
  for (int i = 0; i < 300'000; ++i) {
    const auto x = std::bit_cast<double>(random());
    const double small = std::ldexp(x, -std::ilogb(x)) *
        std::ldexp(1.0, static_cast<int>(random() % 50) - 30);
    for (const double y : {x, small}) {
      if (!std::isnan(y)) {
        inputs.push_back(y);
      }
    }
  }
  expect_rounded(GetParam(), inputs);
}

TEST_P(Convert, NanStaysNan) {
  std::vector<float> floats;
  for (uint32_t payload = 1; payload < 0x800000; payload += 997) {
    floats.push_back(std::bit_cast<float>(0x7f800000u | payload));
    floats.push_back(std::bit_cast<float>(0xff800000u | payload));
  }
  floats.push_back(std::bit_cast<float>(0x7f800001u));
  floats.push_back(std::bit_cast<float>(0xffffffffu));
  for (const uint16_t pattern : narrow(GetParam().dtype, floats)) {
    ASSERT_TRUE(std::isnan(value_of(GetParam(), pattern)));
  }
  const std::vector<double> doubles = {
      std::numeric_limits<double>::quiet_NaN(),
      std::bit_cast<double>(0x7ff0000000000001u),
      std::bit_cast<double>(0xfff8000000000001u)};
  for (const uint16_t pattern : narrow(GetParam().dtype, doubles)) {
    ASSERT_TRUE(std::isnan(value_of(GetParam(), pattern)));
  }
}

// Vectorized loops have bodies and tails, and tensors in a file need not be
// aligned.
TEST(Convert, AnyLengthAndAlignment) {
  constexpr DType kTypes[] = {
      DType::kF16, DType::kBF16, DType::kF32, DType::kF64};
  for (const DType dtype : kTypes) {
    const size_t width = static_cast<size_t>(dtype_bits(dtype)) / 8;
    for (const size_t n : {0, 1, 3, 255, 256, 257, 65537}) {
      std::vector<double> values(n);
      for (size_t i = 0; i < n; ++i) {
        values[i] = static_cast<double>(i % 256) - 128; // exact everywhere
      }
      std::vector<std::byte> stored(n * width + 2, std::byte{0x5a});
      from_float64(dtype, values.data(), stored.data() + 1, n);
      EXPECT_EQ(stored.front(), std::byte{0x5a});
      EXPECT_EQ(stored.back(), std::byte{0x5a});
      std::vector<double> doubles(n);
      to_float64(dtype, stored.data() + 1, doubles.data(), n);
      EXPECT_EQ(doubles, values);
      std::vector<float> floats(n);
      to_float32(dtype, stored.data() + 1, floats.data(), n);
      EXPECT_TRUE(std::equal(floats.begin(), floats.end(), values.begin()));
      std::vector<std::byte> again(n * width + 2, std::byte{0x5a});
      from_float32(dtype, floats.data(), again.data() + 1, n);
      EXPECT_EQ(again, stored);
    }
  }
}

TEST(Convert, RefusesOtherTypes) {
  std::byte in[8]{};
  double out[1];
  test::expect_error<Error>(
      [&] { to_float64(DType::kI32, in, out, 1); }, {"I32", "BF16"});
  test::expect_error<Error>(
      [&] { from_float64(DType::kF8E4M3, out, in, 1); }, {"F8_E4M3"});
}

} // namespace
} // namespace merganser
