#include <gtest/gtest.h>

#include "merganser/io/dtype.h"
#include "merganser/io/safetensors.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

TEST(DType, NamesAndWidths) {
  const std::vector<std::pair<std::string, int>> rows = {
      {"BOOL", 8},    {"F4", 4},          {"F6_E2M3", 6},     {"F6_E3M2", 6},
      {"U8", 8},      {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8},
      {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
      {"U16", 16},    {"F16", 16},        {"BF16", 16},       {"I32", 32},
      {"U32", 32},    {"F32", 32},        {"C64", 64},        {"F64", 64},
      {"I64", 64},    {"U64", 64}};
  for (const auto& [name, bits] : rows) {
    const DType dtype = parse_dtype(name);
    EXPECT_EQ(dtype_name(dtype), name);
    EXPECT_EQ(dtype_bits(dtype), bits) << name;
    EXPECT_EQ(
        is_mergeable(dtype),
        name == "F16" || name == "BF16" || name == "F32" || name == "F64");
  }
}

TEST(DType, UnknownName) {
  EXPECT_FALSE(find_dtype("f32").has_value());
  test::expect_error<InputError>(
      [] { parse_dtype("float\x1b[31m"); },
      {"unknown dtype 'float\\x1b[31m'", "BOOL, F4", "U64"});
}

TEST(TensorInfo, Sizes) {
  EXPECT_EQ((TensorInfo{"t", DType::kF32, {}}).bytes(), 4u);
  EXPECT_EQ((TensorInfo{"t", DType::kBF16, {2, 3}}).bytes(), 12u);
  EXPECT_EQ((TensorInfo{"t", DType::kF4, {3, 2}}).bytes(), 3u);
  EXPECT_EQ((TensorInfo{"t", DType::kF6E2M3, {4}}).bytes(), 3u);
  EXPECT_EQ((TensorInfo{"t", DType::kF32, {2, 3}}).shape_text(), "[2, 3]");
  const int64_t large = int64_t{1} << 40;
  EXPECT_EQ((TensorInfo{"t", DType::kF64, {large, large, 0}}).bytes(), 0u);
}

TEST(TensorInfo, ImpossibleSizes) {
  const int64_t large = int64_t{1} << 62;
  const auto bytes = [](DType dtype, std::vector<int64_t> shape) {
    return [=] { TensorInfo{"w", dtype, shape}.bytes(); };
  };
  using test::expect_error;
  expect_error<InputError>(bytes(DType::kU8, {large, 2}), {"'w'", "2^63"});
  expect_error<InputError>(bytes(DType::kF32, {large}), {"'w'", "2^61"});
  expect_error<InputError>(bytes(DType::kF4, {3}), {"'w'", "whole number"});
  expect_error<InputError>(bytes(DType::kU8, {2, -1}), {"'w'", "negative"});
}

} // namespace
} // namespace merganser
