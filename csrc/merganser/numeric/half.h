#pragma once

// F16 and BF16 as bit patterns, one element at a time, without branches and
// without subnormal arithmetic (a host program may have set flush-to-zero), so
// that the loops in convert.cpp vectorise. Rounding is to nearest even.

#include <bit>
#include <cstdint>

namespace merganser {

inline float float_from_bf16(uint16_t h) {
  return std::bit_cast<float>(static_cast<uint32_t>(h) << 16);
}

// The upper half of a float's bits, rounded: uint32_t, or a vector of them.
template <typename Bits>
[[gnu::always_inline]] inline Bits bf16_bits(Bits bits) {
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits nan = (bits >> 16) | 0x40; // quiet, keeps sign and payload
  return (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded;
}

inline uint16_t bf16_from_float(float value) {
  return static_cast<uint16_t>(bf16_bits(std::bit_cast<uint32_t>(value)));
}

inline float float_from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fff) << 13;
  const uint32_t exponent = magnitude & 0x0f800000;
  // Normal: only the bias differs, 127 instead of 15.
  const uint32_t normal = magnitude + ((127u - 15u) << 23);
  // Infinity and NaN: the exponent becomes all ones.
  const uint32_t special = magnitude | 0x7f800000;
  // Subnormal: m * 2^-24, read off as (2^-14 + m * 2^-24) - 2^-14.
  constexpr uint32_t kSmallest = (127u - 14u) << 23; // 2^-14
  const auto subnormal = std::bit_cast<uint32_t>(
      std::bit_cast<float>(magnitude + kSmallest) -
      std::bit_cast<float>(kSmallest));
  uint32_t bits = exponent == 0x0f800000 ? special : normal;
  bits = exponent == 0 ? subnormal : bits;
  return std::bit_cast<float>(bits | sign);
}

inline uint16_t f16_from_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  // Normal: change the bias and round away 13 bits; a carry runs into the
  // exponent, which is right, up to infinity.
  const uint32_t normal =
      (magnitude - ((127u - 15u) << 23) + 0xfff + ((magnitude >> 13) & 1)) >>
      13;
  // Subnormal: in 0.5 + |x| the last mantissa bit weighs 2^-24, as in the
  // result, so that the addition rounds.
  const auto subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
      std::bit_cast<uint32_t>(0.5f);
  const uint32_t nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
  constexpr uint32_t kSmallestNormal = (127u - 14u) << 23; // 2^-14
  constexpr uint32_t kOverflow = 0x47800000; // 65536
  uint32_t half = magnitude < kSmallestNormal ? subnormal : normal;
  half = magnitude >= kOverflow ? 0x7c00 : half;
  half = magnitude > 0x7f800000 ? nan : half;
  return static_cast<uint16_t>(half | sign);
}

// A float that rounds to the same half as `value` does. Plain narrowing would
// round twice; rounding to odd keeps the sticky bit in the last place.
inline float narrow_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  const auto back = static_cast<double>(nearest);
  const auto bits = std::bit_cast<uint32_t>(nearest);
  const bool too_far = (back < 0 ? -back : back) > (value < 0 ? -value : value);
  const uint32_t odd = (bits - (too_far ? 1 : 0)) | 1;
  return std::bit_cast<float>(back == value ? bits : odd);
}

} // namespace merganser
