#include "merganser/numeric/philox.h"

#include <array>

#include <gtest/gtest.h>

namespace merganser {
namespace {

struct KnownAnswer {
  PhiloxBlock counter;
  PhiloxKey key;
  std::array<uint32_t, 4> expected;
};

// Known answers of the authors' library (Random123, kat_vectors, 10 rounds):
// zeros, ones, and the digits of pi.
const KnownAnswer kKnownAnswers[] = {
    {{{0, 0, 0, 0}},
     {{0, 0}},
     {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
     {{0xffffffff, 0xffffffff}},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
     {{0xa4093822, 0x299f31d0}},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

TEST(Philox, GivesTheKnownAnswers) {
  for (const KnownAnswer& answer : kKnownAnswers) {
    const PhiloxBlock block = philox4x32_10(answer.counter, answer.key);
    EXPECT_EQ(std::to_array(block.word), answer.expected);
  }
}

TEST(Philox, PlacesSeedStreamAndIndex) {
  const PhiloxBlock block =
      philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88);
  EXPECT_EQ(std::to_array(block.word), kKnownAnswers[2].expected);
  EXPECT_EQ(
      philox_u64(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
      0x94fdccebd16cfe09);
}

} // namespace
} // namespace merganser
